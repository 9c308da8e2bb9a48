//! Compiles the datapath for the BPF target and hands the object to the library, which embeds it.

use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-changed=../sni-common/src");
    // SAFETY: a build script's main thread is its only thread here.
    unsafe {
        std::env::set_var("RUSTC_BOOTSTRAP", "1");
        let cache = std::env::var("HOME").context("HOME")? + "/.cache/snigate/bpf-linker-0.10.4/bin:";
        std::env::set_var("PATH", cache + &std::env::var("PATH").context("PATH")?);
    }
    let toolchain = std::env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_| "stable".into());
    aya_build::build_ebpf(
        [aya_build::Package {
            name: "sni-ebpf",
            root_dir: concat!(env!("CARGO_MANIFEST_DIR"), "/../sni-ebpf"),
            ..Default::default()
        }],
        aya_build::Toolchain::Custom(&toolchain),
    )
}
