//! INIT, the first invocation and the ones after it.

use std::time::Instant;

use keyway_tests::{Aws, Deployment};

use crate::function::{Function, HELLO};
use crate::report::{Pairs, Report, hundredth};
use crate::{ALL, DATAKEY, Fallible, KEYS, generate_data_key};

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
    println!("What a function waits for in its INIT: one read of this table alone takes {read:.2} (median of {READS}).");
    for function in [DATAKEY, KEYS, ALL] {
        compare(report, deployment, function, starts).await?;
    }
    Ok(())
}

/// What plays AWS here is slower than AWS, or faster, which the figures of INIT and of first invocations contain.
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

async fn compare(report: &mut Report, deployment: &Deployment, name: &str, starts: usize) -> Fallible<()> {
    let variables = deployment.variables();
    let (mut init, mut first, mut warm) = (Pairs::default(), Pairs::default(), Pairs::default());
    for round in 0..starts {
        // Whoever starts second finds the machine as the other has left it.
        let (keyway, hello) = if round % 2 == 0 {
            let hello = Function::start(HELLO, &[]).await?;
            (Function::start(name, &variables).await?, hello)
        } else {
            let keyway = Function::start(name, &variables).await?;
            (keyway, Function::start(HELLO, &[]).await?)
        };
        init.add(keyway.init, hello.init);
        // The other function has no route whose answer needs no call.
        if name != KEYS {
            let request = generate_data_key();
            first.add(keyway.invoke(&request).await?.took, hello.invoke(&request).await?.took);
            for _ in 0..WARM_INVOCATIONS {
                warm.add(keyway.invoke(&request).await?.took, hello.invoke(&request).await?.took);
            }
        }
        keyway.stop().await?;
        hello.stop().await?;
    }
    Report::head(name);
    report.add(name, "INIT, process start to first `next`", &init, Some(INIT_TARGET))?;
    if name != KEYS {
        report.add(name, "first generate-data-key", &first, None)?;
        report.add(name, "warm generate-data-key", &warm, Some(WARM_TARGET))?;
    }
    Ok(())
}
