//! libFuzzer's program for [`libvirt_fuzz::decode`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    libvirt_fuzz::decode::run(input);
});
