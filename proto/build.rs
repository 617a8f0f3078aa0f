//! Compiles the protocol with protox: no protoc on the machine is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=fleet/v1/sidecar.proto");
    let descriptors = protox::compile(["fleet/v1/sidecar.proto"], ["."])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
