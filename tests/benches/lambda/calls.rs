//! The calls that a warm function makes: none.

use std::time::{Duration, Instant};

use keyway_tests::{Aws, Deployment, Proxy};

use crate::function::Function;
use crate::report::Report;
use crate::{ALL, DATAKEY, Fallible, generate_data_key};

const INVOCATIONS: usize = 200;
/// The default, which the functions run with here.
const STATE_TTL: Duration = Duration::from_secs(5);

pub(crate) async fn measure(
    report: &mut Report,
    aws: &Aws,
    deployment: &Deployment,
) -> Fallible<()> {
    for name in [DATAKEY, ALL] {
        let proxy = Proxy::before(&aws.endpoint).await;
        // The oldest state that the function has is that of its start.
        let begun = Instant::now();
        let function =
            Function::start(name, &deployment.through(&proxy.endpoint).variables()).await?;
        function.invoke(&generate_data_key()).await?;
        let before = proxy.count();
        if before == 0 {
            return Err("the function does not go through the proxy, so nothing is counted".into());
        }
        for _ in 0..INVOCATIONS {
            function.invoke(&generate_data_key()).await?;
        }
        let (took, calls) = (begun.elapsed(), proxy.count() - before);
        function.stop().await?;
        println!(
            "\n{name}: {before} calls up to the first generate-data-key, {calls} in {INVOCATIONS} more"
        );
        if took >= STATE_TTL {
            return Err(format!(
                "{INVOCATIONS} invocations took {took:?}, which is beyond the state TTL"
            )
            .into());
        }
        report.judge(
            &format!("{name}: calls in {INVOCATIONS} warm generate-data-key"),
            calls as f64,
            0.0,
            "",
        );
        if calls > 0 {
            return Err(format!("{name} made {calls} calls within the state TTL").into());
        }
    }
    Ok(())
}
