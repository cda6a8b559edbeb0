#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| uptally_fuzz::calendars::run(bytes));
