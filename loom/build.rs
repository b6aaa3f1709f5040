//! Sets the `cfg` by which the sources of hedgerow know that they are compiled for a model.

fn main() {
    println!("cargo:rustc-check-cfg=cfg(loom)");
    println!("cargo:rustc-cfg=loom");
}
