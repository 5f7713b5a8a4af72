//! The shortest program: `cargo run -p larder-client --example quick_start -- 127.0.0.1:9411`.
#![forbid(unsafe_code)]

use larder_client::{Client, ClientError, ItemRef, Put};

pub(crate) fn run(node: &str) -> Result<(), ClientError> {
    let client = Client::connect(node)?;
    let name = ItemRef::new(0, b"user:1", b"name")?;
    client.put(name, &Put::value(b"Ada")).wait()?;
    let item = client.get(name).wait()?.expect("it was just stored");
    assert_eq!(item.value, b"Ada");
    client.delete(name).wait()?;
    Ok(())
}

fn main() -> Result<(), ClientError> {
    run(&std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9411".to_owned()))
}
