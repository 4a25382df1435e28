//! Entry points of the fuzzers, next to what they fuzz. Compiled with `--cfg fuzzing` only.
