#![no_main]

use tazpod_fuzz::sow;
use tazpod_fuzz::vault::hostile;

libfuzzer_sys::fuzz_target!(init: sow("legacy"), |data: &[u8]| hostile::legacy(data));
