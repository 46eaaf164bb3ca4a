//! CloudFormation makes a change set of the template, for every front and the combinations of parameters.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::Stdio;

use keyway_tests::Aws;
use serde::Deserialize;

use crate::deployments::{Deployment, deployments, tool};

#[derive(Deserialize)]
struct ChangeSet {
    status: String,
    reason: String,
    /// The types of the resources that it adds, by their names.
    resources: BTreeMap<String, String>,
}

/// The change sets of these deployments; none where nothing plays CloudFormation.
fn change_sets(deployments: &[Deployment]) -> Option<Vec<ChangeSet>> {
    let aws = Aws::here()?;
    if !aws.makes_change_sets() {
        return None;
    }
    let sets: Vec<_> = deployments.iter().map(Deployment::parameters).collect();
    let mut script = tool("../venv/bin/python")?
        .args(["-I", "tests/template/change_sets.py", "template.yaml"])
        .env("AWS_ENDPOINT_URL", &aws.endpoint)
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = script.stdin.take().unwrap();
    input
        .write_all(&serde_json::to_vec(&sets).unwrap())
        .unwrap();
    drop(input);
    let output = script.wait_with_output().unwrap();
    assert!(output.status.success(), "the change sets are not made");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn every_deployment_has_a_change_set_with_its_resources() {
    let deployments = deployments();
    let Some(change_sets) = change_sets(deployments) else {
        return;
    };
    assert_eq!(change_sets.len(), deployments.len());
    for (deployment, made) in deployments.iter().zip(change_sets) {
        let ChangeSet { status, reason, .. } = &made;
        let parameters = deployment.parameters();
        assert_eq!(
            status, "CREATE_COMPLETE",
            "with {parameters:?} there is no change set: {reason}"
        );
        let expected: BTreeSet<(&str, &str)> = deployment
            .resources()
            .map(|(name, resource)| (name, resource["Type"].as_str().unwrap()))
            .collect();
        let found: BTreeSet<(&str, &str)> = made
            .resources
            .iter()
            .map(|(name, kind)| (name.as_str(), kind.as_str()))
            .collect();
        assert_eq!(found, expected, "with {parameters:?}");
    }
}
