//! A function that only answers: the reference of the cold-start measurement.

use std::convert::Infallible;

use lambda_runtime::{Error, LambdaEvent, Runtime, service_fn};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let hello = |_: LambdaEvent<Value>| async {
        Ok::<_, Infallible>(json!({ "statusCode": 200, "body": "hello" }))
    };
    Runtime::new(service_fn(hello)).run().await
}
