//! Threads that share a client: `cargo run -p larder-client --example threads -- 127.0.0.1:9411`.
#![forbid(unsafe_code)]

use larder_client::{CallKind, Calls, Client, ClientError, ItemRef, Put};

pub(crate) fn run(node: &str) -> Result<(), ClientError> {
    let client = Client::connect(node)?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let client = client.clone();
                scope.spawn(move || work(&client, thread))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    let metrics = client.metrics();
    let gets = metrics.of(CallKind::Get);
    println!("{} reads, the 99th percentile took {:?}", gets.calls, gets.latency(0.99));
    Ok(())
}

fn work(client: &Client, thread: u32) -> Result<(), ClientError> {
    let names: Vec<String> = (0..100).map(|number| format!("thread:{thread}:{number}")).collect();
    // What is asked for before the first answer is waited for goes to the node together.
    let puts = names.iter().map(|name| {
        let key = ItemRef::of_record(name)?;
        Ok(client.put(key, &Put::value(name.as_bytes())))
    });
    let puts: Calls<_> = puts.collect::<Result<Vec<_>, ClientError>>()?.into_iter().collect();
    puts.wait().into_iter().collect::<Result<Vec<_>, _>>()?;
    for name in &names {
        let item = client.get(ItemRef::of_record(name)?).wait()?.expect("it was just stored");
        assert_eq!(item.value, name.as_bytes());
    }
    Ok(())
}

fn main() -> Result<(), ClientError> {
    run(&std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9411".to_owned()))
}
