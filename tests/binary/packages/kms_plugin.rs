//! The manifest of the KMS plugin and the API server's configuration: their schema, and what fits together.

use std::process::Command;

use keyway_tests::project;
use serde_json::{Value, json};

use super::{VERSION, archive, run};

fn read(file: &str) -> Value {
    let text = std::fs::read_to_string(archive().join("kubernetes").join(file)).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

#[test]
fn manifest_of_the_plugin_has_the_schema_of_kubernetes() {
    let validate = project().join(".cache/kubernetes-validate/bin/kubernetes-validate");
    if !validate.exists() {
        assert!(
            !crate::is_set("CI"),
            "kubernetes-validate is not installed: run scripts/kubernetes-validate"
        );
        eprintln!("SKIPPED: kubernetes-validate is not installed; run scripts/kubernetes-validate");
        return;
    }
    run(Command::new(&validate)
        .args(["--strict", "--kubernetes-version", "1.37"])
        .arg(archive().join("kubernetes/kms-plugin.yaml")));
}

/// A static pod cannot use secrets, accounts or config maps.
#[test]
fn plugin_is_a_static_pod_with_the_least_rights() {
    let pod = read("kms-plugin.yaml");
    assert_eq!(pod["kind"], "Pod");
    assert_eq!(pod["metadata"]["namespace"], "kube-system");
    let spec = &pod["spec"];
    assert_eq!(spec["hostNetwork"], true);
    assert_eq!(spec["priorityClassName"], "system-node-critical");
    assert!(spec.get("serviceAccountName").is_none());
    for volume in spec["volumes"].as_array().unwrap() {
        assert!(volume["hostPath"].is_object(), "{volume}");
    }
    let container = &spec["containers"][0];
    assert_eq!(container["image"], format!("keyway:{VERSION}"));
    for one in container["env"].as_array().unwrap() {
        assert!(one.get("valueFrom").is_none(), "{one}");
    }
    let expected = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    });
    assert_eq!(container["securityContext"], expected);
    let mounts = container["volumeMounts"].as_array().unwrap();
    let settings = (mounts.iter()).find(|mount| mount["name"] == "settings");
    assert_eq!(settings.unwrap()["readOnly"], true);
}

#[test]
fn api_server_calls_the_socket_of_the_plugin() {
    let configuration = read("encryption-configuration.yaml");
    let providers = configuration["resources"][0]["providers"]
        .as_array()
        .unwrap();
    let kms = &providers[0]["kms"];
    assert_eq!(kms["apiVersion"], "v2");
    assert_eq!(providers[1], json!({"identity": {}}));
    let pod = read("kms-plugin.yaml");
    let container = &pod["spec"]["containers"][0];
    let arguments = container["args"].as_array().unwrap();
    let socket = (arguments.iter())
        .find_map(|argument| argument.as_str().unwrap().strip_prefix("--socket="))
        .unwrap();
    assert_eq!(kms["endpoint"], format!("unix://{socket}"));
    let mounts = container["volumeMounts"].as_array().unwrap();
    let mount = mounts.iter().find(|mount| mount["name"] == "socket");
    let folder = mount.unwrap()["mountPath"].as_str().unwrap();
    assert!(socket.starts_with(&format!("{folder}/")), "{socket}");
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let volume = volumes.iter().find(|volume| volume["name"] == "socket");
    // The API server finds it on the node under the same path.
    assert_eq!(volume.unwrap()["hostPath"]["path"], folder);
}
