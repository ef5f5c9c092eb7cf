#![no_main]

use tazpod_fuzz::sow;
use tazpod_fuzz::vault::hostile;

libfuzzer_sys::fuzz_target!(init: sow("commit"), |data: &[u8]| hostile::commit(data));
