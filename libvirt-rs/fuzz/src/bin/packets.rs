//! libFuzzer's program for [`libvirt_fuzz::packets`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    libvirt_fuzz::packets::run(input);
});
