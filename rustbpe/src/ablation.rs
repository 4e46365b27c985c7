//! `RUSTBPE_WITHOUT=batches cargo run --release --features ablation --example train -- ...` trains
//! without one of the tricks, so that everyone can measure what it buys (`benchmarks/bpe.py
//! --ablation`). Without the feature all of this is compiled away.

/// Whether to do without this trick.
pub fn without(trick: &str) -> bool {
    cfg!(feature = "ablation") && std::env::var("RUSTBPE_WITHOUT").is_ok_and(|name| name == trick)
}
