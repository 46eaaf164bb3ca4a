//! INIT, the first invocation and the ones after it.

use std::time::Instant;

use keyway_tests::{Aws, Deployment};

use crate::function::{Function, HELLO};
use crate::report::{Pairs, Report, hundredth};
use crate::{ALL, DATAKEY, Fallible, KEYS, generate_data_key, replay};

const INIT_TARGET: f64 = 25.0;
const WARM_TARGET: f64 = 0.5;
/// After each start, within the state TTL.
const WARM_INVOCATIONS: usize = 50;
const READS: usize = 50;

pub(crate) async fn measure(
    report: &mut Report,
    aws: &Aws,
    deployment: &Deployment,
    starts: usize,
) -> Fallible<()> {
    let read = read(aws, deployment).await?;
    println!(
        "INIT waits for a few reads at once; one read of this table alone takes {read:.2} (median of {READS})."
    );
    println!(
        "Replayed: the services' answers come from memory, so that the functions' own share can be seen."
    );
    let replayed = deployment.through(&replay::before(&aws.endpoint).await?);
    for name in [DATAKEY, KEYS, ALL] {
        let services = compare(deployment, name, starts).await?;
        let replayed = compare(&replayed, name, starts).await?;
        Report::head(name);
        report.add(
            name,
            &format!("INIT, {}", aws.backend),
            &services.init,
            Some(INIT_TARGET),
        )?;
        report.add(name, "INIT, replayed", &replayed.init, Some(INIT_TARGET))?;
        if name != KEYS {
            let (first, warm) = (&services.first, &services.warm);
            report.add(
                name,
                &format!("first generate-data-key, {}", aws.backend),
                first,
                None,
            )?;
            report.add(
                name,
                "first generate-data-key, replayed",
                &replayed.first,
                None,
            )?;
            report.add(name, "warm generate-data-key", warm, Some(WARM_TARGET))?;
        }
    }
    Ok(())
}

/// The stand-in for AWS is slower or faster than AWS; the figures of INIT and first invocations include that.
async fn read(aws: &Aws, deployment: &Deployment) -> Fallible<f64> {
    let client = aws_sdk_dynamodb::Client::new(&aws.config());
    let attribute = |text: &str| aws_sdk_dynamodb::types::AttributeValue::S(text.to_owned());
    let mut milliseconds = Vec::new();
    for _ in 0..READS {
        let begun = Instant::now();
        let read = client
            .get_item()
            .table_name(&deployment.table)
            .key("kind", attribute("key"))
            .key("id", attribute("bench"))
            .send();
        read.await?.item.ok_or("the key is not in the table")?;
        milliseconds.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    hundredth(&milliseconds, 50)
}

#[derive(Default)]
struct Compared {
    /// Process start to first `next`.
    init: Pairs,
    first: Pairs,
    warm: Pairs,
}

async fn compare(deployment: &Deployment, name: &str, starts: usize) -> Fallible<Compared> {
    let mut compared = Compared::default();
    // In the first turn, neither the binaries nor the answers to replay are in memory.
    turn(&mut Compared::default(), deployment, name, true).await?;
    for number in 0..starts {
        turn(&mut compared, deployment, name, number % 2 == 0).await?;
    }
    Ok(compared)
}

/// Starts both functions and calls them. The first one warms the machine for the second, so they take turns in starting
/// first.
async fn turn(
    compared: &mut Compared,
    deployment: &Deployment,
    name: &str,
    hello_first: bool,
) -> Fallible<()> {
    let variables = deployment.variables();
    let (keyway, hello) = if hello_first {
        let hello = Function::start(HELLO, &[]).await?;
        (Function::start(name, &variables).await?, hello)
    } else {
        let keyway = Function::start(name, &variables).await?;
        (keyway, Function::start(HELLO, &[]).await?)
    };
    compared.init.add(keyway.init, hello.init);
    // The keys function has no route that is answered without a call.
    let invocations = if name == KEYS {
        0
    } else {
        1 + WARM_INVOCATIONS
    };
    for number in 0..invocations {
        let request = generate_data_key();
        let (keyway, hello) = (
            keyway.invoke(&request).await?,
            hello.invoke(&request).await?,
        );
        let pairs = if number == 0 {
            &mut compared.first
        } else {
            &mut compared.warm
        };
        pairs.add(keyway.took, hello.took);
    }
    keyway.stop().await?;
    hello.stop().await
}
