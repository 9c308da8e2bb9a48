//! OpenSSL's own client and server, which know nothing of this project.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

/// How a client fared.
pub(crate) struct Client {
    pub(crate) output: String,
    /// Whether a line came back reversed.
    pub(crate) echoed: bool,
}

impl Client {
    /// Connects with these arguments, sends a line, waits for it to come back reversed or for the end, and closes.
    pub(crate) fn run(directory: &Path, port: u16, arguments: &str) -> Self {
        let arguments = format!(
            "s_client -connect 127.0.0.1:{port} -servername sip.contoso.example {arguments}"
        );
        let mut child = start(directory, &arguments);
        let mut stdin = child.stdin.take().expect("stdin");
        // It may have ended already.
        let _ = stdin.write_all(b"snigate\n");
        let mut reader = BufReader::new(child.stdout.take().expect("stdout"));
        let (mut output, mut line) = (String::new(), Vec::new());
        let mut echoed = false;
        while !echoed && reader.read_until(b'\n', &mut line).expect("text") > 0 {
            output += &String::from_utf8_lossy(&line);
            echoed = line.windows(7).any(|window| window == b"etagins");
            line.clear();
        }
        drop(stdin);
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).expect("text");
        output += &String::from_utf8_lossy(&rest);
        child.wait().expect("its end");
        Self { output, echoed }
    }

    /// As [`Self::run`], and the line must come back.
    pub(crate) fn echo(directory: &Path, port: u16, arguments: &str) -> Self {
        let client = Self::run(directory, port, arguments);
        assert!(client.echoed, "{arguments}: {}", client.output);
        client
    }

    /// As [`Self::run`], and the connection must end with this alert.
    pub(crate) fn refused(directory: &Path, port: u16, arguments: &str, alert: u8) {
        let client = Self::run(directory, port, arguments);
        assert!(!client.echoed, "{arguments}: {}", client.output);
        let wanted = format!("SSL alert number {alert}");
        assert!(
            client.output.contains(&wanted),
            "{arguments}: no {wanted}: {}",
            client.output
        );
    }
}

/// `openssl s_server -rev`; killed when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    child: Child,
    _stdout: BufReader<std::process::ChildStdout>,
}

impl Server {
    pub(crate) fn start(directory: &Path, arguments: &str) -> Self {
        let mut child = start(
            directory,
            &format!("s_server -rev -accept 127.0.0.1:0 {arguments}"),
        );
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout"));
        let mut output = String::new();
        let address = loop {
            let start = output.len();
            let read = stdout.read_line(&mut output).expect("text");
            assert!(read > 0, "s_server {arguments}: {output}");
            if let Some(address) = output[start..].trim().strip_prefix("ACCEPT ") {
                break address.parse().expect("an address");
            }
        };
        Self {
            address,
            child,
            _stdout: stdout,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// With standard error among standard output, and an end to everything.
fn start(directory: &Path, arguments: &str) -> Child {
    Command::new("timeout")
        .args(["60", "sh", "-c", &format!("exec openssl {arguments} 2>&1")])
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl; `apt-get install openssl`")
}
