#!/bin/bash
# Builds each target for OSS-Fuzz, and packs its corpus beside it. Runs in the root of the repository. OSS-Fuzz sets OUT,
# the folder of the results.
set -euo pipefail

cargo fuzz build -O
for source in fuzz/fuzz_targets/*.rs; do
  target=$(basename "$source" .rs)
  cp "fuzz/target/x86_64-unknown-linux-gnu/release/$target" "$OUT/"
  zip --junk-paths --quiet "$OUT/${target}_seed_corpus.zip" "fuzz/corpus/$target"/*
done
