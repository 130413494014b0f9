//! libFuzzer's program for [`libvirt_fuzz::parse`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    libvirt_fuzz::parse::run(input);
});
