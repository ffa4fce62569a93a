#![no_main]

#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let folder = std::env::temp_dir();
    let (_, target) = targets::TARGETS.iter().find(|(name, _)| *name == "wide_rows").unwrap();
    target(bytes, &folder);
});
