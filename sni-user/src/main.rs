//! The binary `snigate`; see `sni_user::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sni_user::cli::main()
}
