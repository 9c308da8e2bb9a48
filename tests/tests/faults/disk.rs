//! A full disk: where domains are kept, where keys are made, and where the log goes.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{
    Lab,
    deadline::Deadline,
    gateway::{Gateway, binary, instead_of_agent},
    lab_test, output_within,
};

use crate::{
    TIMEOUT, lines, metrics, page, quiet, said, sample,
    scene::{Scene, WAYS, all_live, crl},
};

const INCLUDE: &str = "include = [\"domains.d/*.toml\"]";

/// In a mount namespace of the agent's own, a small disk has the domains and the log, which is copied out for as long as there is room.
const SMALL_DISK: &str = r#"
exec unshare --mount sh -c '
mkdir -p "$DIR/disk" "$DIR/domains.d" &&
mount -t tmpfs -o size=256k small "$DIR/disk" &&
mkdir "$DIR/disk/domains.d" && : > "$DIR/disk/log" &&
mount --bind "$DIR/disk/domains.d" "$DIR/domains.d" || exit 1
tail --pid=$$ -n +1 -f "$DIR/disk/log" >&2 &
exec "$SNIGATE" "$@" 2>> "$DIR/disk/log"' sh "$@"
"#;

/// The disk as the agent sees it.
struct Disk(PathBuf);

impl Disk {
    fn of(gateway: &Gateway<'_>, lab: &Lab) -> Result<Self> {
        let root = PathBuf::from(format!("/proc/{}/root", gateway.pid()?));
        Ok(Self(root.join(lab.dir().strip_prefix("/")?).join("disk")))
    }

    /// Until not a byte more fits.
    fn fill(&self) -> Result<()> {
        let ballast = self.0.join("ballast");
        let file = fs::File::options()
            .append(true)
            .create(true)
            .open(&ballast)?;
        for block in [4096, 1] {
            while std::io::Write::write_all(&mut &file, &vec![0; block]).is_ok() {}
        }
        Ok(())
    }

    fn empty(&self) -> Result<()> {
        Ok(fs::remove_file(self.0.join("ballast"))?)
    }

    /// The files that say what domains there are, and whatever else lies there.
    fn domains(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(self.0.join("domains.d"))?;
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }
}

#[test]
fn a_full_disk_loses_log_lines_and_nothing_else() {
    lab_test("faults-disk", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let agent = instead_of_agent(lab, SMALL_DISK)?;
        let mut gateway = scene.gateway(INCLUDE, Some(agent))?;
        let disk = Disk::of(&gateway, lab)?;
        let add = |domain| ["domain", "add", domain, "--pool", "a"];
        gateway.output(&add("fabrikam.example"))?;
        let mut open = scene.open_all(&WAYS)?;

        disk.fill()?;
        let before = metrics(&lab.gateway)?;
        // Nothing half stays of what can't be written.
        let refused = gateway.refusal(&add("litware.example"))?;
        ensure!(
            refused.contains("litware.example.toml") && refused.contains("No space left"),
            "{refused}"
        );
        ensure!(disk.domains()? == ["fabrikam.example.toml"]);
        // What is removed and has to come back needs no room.
        fs::write(gateway.config(), "this is no configuration\n")?;
        gateway.refusal(&["domain", "rm", "fabrikam.example"])?;
        ensure!(disk.domains()? == ["fabrikam.example.toml"]);
        gateway.configure(INCLUDE, &scene.tables())?;
        gateway.output(&["reload"])?;
        gateway.output(&["domain", "rm", "fabrikam.example"])?;
        ensure!(disk.domains()?.is_empty());

        // Everything else goes on, although not a line about it can be written: no more than a page of the file has room for.
        disk.fill()?;
        let size = fs::metadata(disk.0.join("log"))?.len();
        all_live(&mut open)?;
        let mut new = scene.open_all(&WAYS)?;
        all_live(&mut new)?;
        gateway.json(&["status"])?;
        let terminated = "snigate_connections_opened_total{way=\"terminated\"}";
        // Who asks within a second is told the same.
        Deadline::after(TIMEOUT).poll("the metrics to go on", || {
            let after = metrics(&lab.gateway)?;
            Ok((sample(&after, terminated) > sample(&before, terminated)).then_some(()))
        })?;
        let (address, path) = crl();
        ensure!(!page(&lab.edge_b, address, path)?.is_empty());
        ensure!(fs::metadata(disk.0.join("log"))?.len() <= size.next_multiple_of(4096));

        disk.empty()?;
        gateway.output(&add("litware.example"))?;
        ensure!(disk.domains()? == ["litware.example.toml"]);
        said(&gateway, "domain add litware.example")?;
        all_live(&mut open)?;
        ensure!(lines(&gateway, "panicked")? == 0);
        gateway.stop()
    });
}

#[test]
fn an_agent_without_room_for_its_socket_says_so() {
    lab_test("faults-run-full", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let control = "\nmkdir -p $DIR/run; exec unshare --mount sh -c '\n\
             mount -t tmpfs -o nr_inodes=1 small \"$DIR/run\" && exec \"$SNIGATE\" \"$@\"' sh \"$@\"\n";
        let agent = instead_of_agent(lab, control)?;
        let config = lab.write_file(
            "full.toml",
            &format!(
                "[gateway]\ninterfaces = [\"wan0\", \"lan0\", \"lan1\"]\nhook = \"xdp\"\npin_path = \"{}\"\ncontrol = \"{}\"\n{}",
                lab.bpffs()?.join("snigate").display(),
                lab.dir().join("run/control.sock").display(),
                scene.tables()
            ),
        )?;
        let mut command = lab.gateway.command(agent);
        command.args(["run", "--config"]).arg(config);
        let output = output_within(&mut command, 5 * TIMEOUT)?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1), "{errors}");
        let last = errors.lines().last().context("a word")?;
        ensure!(
            last.contains("run/control.sock") && last.contains("No space left"),
            "{errors}"
        );
        // Flows are more than their agent: what is steered goes on.
        let mut open = scene.open_all(&WAYS[..1])?;
        all_live(&mut open)
    });
}

#[test]
fn half_a_ca_is_not_left_on_a_full_disk() {
    lab_test("faults-ca-full", &quiet(), |lab| {
        let config = lab.write_file(
            "ca.toml",
            "[gateway]\ninterfaces = [\"wan0\"]\n[identity]\nca = \"small/ca.pem\"\nkey = \"small/ca.key\"\n",
        )?;
        fs::create_dir(lab.dir().join("small"))?;
        // Room for the key, and not for the certificate; then for both.
        let script = "mount -t tmpfs -o size=8k small \"$2/small\" && head -c 4096 /dev/zero > \"$2/small/ballast\" || exit 9\n\
             \"$1\" ca init --config \"$3\"; echo \"ended with $?\"; ls \"$2/small\"; rm \"$2/small/ballast\"\n\
             \"$1\" ca init --config \"$3\"; echo \"ended with $?\"; ls \"$2/small\"";
        let mut command = lab.gateway.command("unshare");
        command
            .args(["--mount", "sh", "-c", script, "sh"])
            .arg(binary()?)
            .arg(lab.dir())
            .arg(config);
        let output = output_within(&mut command, TIMEOUT)?;
        let told = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            errors.contains("small/ca.pem") && errors.contains("No space left"),
            "{errors}"
        );
        let (full, roomy) = told.split_once("ended with 0").context(told.to_string())?;
        ensure!(
            full == "ended with 1\nballast\n" || full.starts_with("ended with 1\nballast\nmade "),
            "{told}"
        );
        ensure!(roomy.trim() == "ca.key\nca.pem", "{told}");
        Ok(())
    });
}
