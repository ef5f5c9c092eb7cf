#![no_main]

use tazpod_fuzz::sow;
use tazpod_fuzz::vault::hostile;

libfuzzer_sys::fuzz_target!(init: sow("archive"), |data: &[u8]| hostile::archive(data));
