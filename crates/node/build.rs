//! Links the addon against the N-API of the program that loads it.

fn main() {
    napi_build::setup();
}
