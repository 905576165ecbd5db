//! What other routers and files of earlier runs say: the inputs that the fuzz target keeps, and noise.

#[path = "../../../fuzz/src/input.rs"]
#[allow(dead_code)]
mod input;
#[path = "../../../fuzz/src/peers.rs"]
mod peers;

use std::path::Path;

use input::Input;
use routecore::rng::Rng;

#[test]
fn inputs_that_were_kept() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/peers");
    let mut count = 0;
    for file in std::fs::read_dir(corpus).expect("a corpus") {
        let path = file.expect("a file").path();
        peers::live(&std::fs::read(&path).expect("an input"));
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn noise() {
    let mut rng = Rng::new(12);
    for length in 0..600_usize {
        let bytes: Vec<u8> = (0..length).map(|_| rng.below(256) as u8).collect();
        peers::live(&bytes);
    }
}
