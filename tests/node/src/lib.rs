//! Tests that run where the filters do: on 32-bit WebAssembly, where a length is 32 bits and an overflow shows. They run
//! natively too, so that a difference between the two is seen.
