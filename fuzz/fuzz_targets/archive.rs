#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nsrs_store::fuzz::archive(bytes));
