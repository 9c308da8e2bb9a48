//! What code costs that needs no kernel, as one table: `cargo xtask bench micro`.

mod hello;
mod load;
mod mint;
mod routes;

fn main() {
    divan::main();
}
