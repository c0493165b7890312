//! The checked-in wire code is what the `.proto` files say. `PEIL_BLESS=1 cargo test -p peil-proto`
//! writes it anew after a change of the files.

use std::path::Path;

#[test]
fn generated_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["peil/v1/records.proto", "peil/v1/stream.proto", "peil/v1/enrol.proto"];
    let descriptors = protox::compile(files, [root]).expect("the proto files compile");
    let out = tempfile::tempdir().expect("a directory to write to");
    tonic_prost_build::configure()
        .out_dir(out.path())
        .bytes(".peil.v1.Batch.block")
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)
        .expect("code is generated");
    let generated = std::fs::read_to_string(out.path().join("peil.v1.rs")).expect("one package");
    let kept = root.join("src/wire/peil.v1.rs");
    if std::env::var_os("PEIL_BLESS").is_some() {
        std::fs::write(&kept, &generated).expect("written");
    }
    let current = std::fs::read_to_string(&kept).unwrap_or_default();
    assert!(
        current == generated,
        "proto/src/wire/peil.v1.rs is out of date: run `PEIL_BLESS=1 cargo test -p peil-proto --test wire_is_current`"
    );
}
