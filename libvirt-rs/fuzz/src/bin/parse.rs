//! libFuzzer's program for [`libvirt_fuzz::parse`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: libvirt_fuzz::memory::confine().expect("the kernel limits our memory"),
    |input: &[u8]| {
        libvirt_fuzz::parse::run(input);
    }
);
