#![no_main]

use tazpod_fuzz::sow;
use tazpod_fuzz::vault::hostile;

libfuzzer_sys::fuzz_target!(init: sow("keyring"), |data: &[u8]| hostile::keyring(data));
