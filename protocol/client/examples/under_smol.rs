//! Tasks of smol that share a client: `cargo run -p larder-client --example under_smol`.
#![forbid(unsafe_code)]

use larder_client::{Changes, Client, ClientError, ItemRef, Mutated};

pub(crate) fn run(node: &str) -> Result<(), ClientError> {
    let client = Client::connect(node)?;
    smol::block_on(async {
        client.delete(ItemRef::of_record("visits")?).await?;
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let client = client.clone();
                smol::spawn(async move {
                    client.increment(ItemRef::of_record("visits")?, 1, Some(1)).await
                })
            })
            .collect();
        for task in tasks {
            task.await?.expect("a number");
        }
        let mut changes = Changes::of_record(0, "visits")?;
        changes.increment("", 1, None)?;
        match client.mutate(&changes).await? {
            Mutated::Yes(changed) => assert_eq!(changed[0].number, 51),
            Mutated::No { at, unmet } => panic!("change {at}: {unmet:?}"),
        }
        Ok(())
    })
}

fn main() -> Result<(), ClientError> {
    run(&std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9411".to_owned()))
}
