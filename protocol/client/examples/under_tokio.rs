//! Tasks of tokio that share a client: `cargo run -p larder-client --example under_tokio`.
#![forbid(unsafe_code)]

use larder_client::{Client, ClientError, ItemRef, ItemsOf, Put};

pub(crate) fn run(node: &str) -> Result<(), ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(work(Client::connect(node)?))
}

async fn work(client: Client) -> Result<(), ClientError> {
    let tasks: Vec<_> = (0..50u32)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move {
                let item = format!("photo:{number:03}");
                let key = ItemRef::new(0, b"tokio", item.as_bytes())?;
                client.put(key, &Put::value(b"...")).await
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic")?;
    }
    let mut photos = client.items(ItemsOf::record(0, "tokio")?);
    let mut count = 0;
    while let Some(page) = photos.next_page().await? {
        count += page.len();
    }
    assert_eq!(count, 50);
    Ok(())
}

fn main() -> Result<(), ClientError> {
    run(&std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9411".to_owned()))
}
