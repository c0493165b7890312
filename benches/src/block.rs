//! `cargo run --release -p peil-benches --bin block`: bytes and nanoseconds per result in a column block.

fn main() {
    print!("{}", peil_benches::layout::table());
}
