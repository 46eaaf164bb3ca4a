//! Kubernetes' manifests: their schema, and what it does not say.

use std::collections::BTreeSet;
use std::process::Command;

use keyway_tests::{ServerOptions, project};
use rcgen::generate_simple_self_signed;
use serde_json::{Value, json};

use super::{VERSION, archive, run};

const FILES: [&str; 3] = ["one-node.yaml", "shared-table.yaml", "postgres.yaml"];
/// Deployments of several replicas.
const SHARED: [&str; 2] = ["shared-table.yaml", "postgres.yaml"];
/// Variables whose values are in secrets of the namespace.
const SECRET_VARIABLES: [&str; 3] = [
    "KEYWAY_ROOT_ACCESS_KEY",
    "KEYWAY_ROOT_SECRET_KEY",
    "KEYWAY_ROOT_KEYRING_VAULT_ROLE_ID",
];

/// The objects of a file.
fn objects(file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(archive().join("kubernetes").join(file)).unwrap();
    serde_saphyr::from_multiple(&text).unwrap()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let mut found = objects.iter().filter(|object| object["kind"] == kind);
    found.next().unwrap_or_else(|| panic!("there is no {kind}"))
}

/// The StatefulSet or the Deployment.
fn workload(objects: &[Value]) -> &Value {
    let mut found = objects
        .iter()
        .filter(|object| object["spec"]["template"].is_object());
    found.next().unwrap()
}

fn pod(objects: &[Value]) -> &Value {
    &workload(objects)["spec"]["template"]["spec"]
}

fn container(objects: &[Value]) -> &Value {
    &pod(objects)["containers"][0]
}

/// The value of a variable of the container, which is null where it comes from a secret.
fn variable<'a>(objects: &'a [Value], name: &str) -> Option<&'a Value> {
    let all = container(objects)["env"].as_array().unwrap();
    all.iter()
        .find(|one| one["name"] == name)
        .map(|one| &one["value"])
}

#[test]
fn manifests_have_the_schema_of_kubernetes() {
    let validate = project().join(".cache/kubernetes-validate/bin/kubernetes-validate");
    if !validate.exists() {
        assert!(
            !crate::is_set("CI"),
            "kubernetes-validate is not installed: run scripts/kubernetes-validate"
        );
        eprintln!("SKIPPED: kubernetes-validate is not installed; run scripts/kubernetes-validate");
        return;
    }
    for file in FILES {
        let mut validate = Command::new(&validate);
        run(validate
            .args(["--strict", "--kubernetes-version", "1.37"])
            .arg(archive().join("kubernetes").join(file)));
    }
}

#[test]
fn pods_pass_the_restricted_standard() {
    for file in FILES {
        let objects = objects(file);
        let labels = &of_kind(&objects, "Namespace")["metadata"]["labels"];
        assert_eq!(labels["pod-security.kubernetes.io/enforce"], "restricted");
        let (pod, container) = (pod(&objects), container(&objects));
        let context = &pod["securityContext"];
        assert_eq!(context["runAsNonRoot"], true, "{file}");
        assert!(context["runAsUser"].as_u64().is_some_and(|id| id > 0));
        assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
        let expected = json!({
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        });
        assert_eq!(container["securityContext"], expected, "{file}");
        for of_host in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(pod.get(of_host).is_none(), "{file}: {of_host}");
        }
        for port in container["ports"].as_array().unwrap() {
            assert!(port.get("hostPort").is_none(), "{file}");
        }
        for volume in pod["volumes"].as_array().unwrap() {
            let kinds: Vec<_> = volume.as_object().unwrap().keys().collect();
            assert_eq!(kinds, ["name", "secret"], "{file}");
        }
        assert_eq!(pod["containers"].as_array().unwrap().len(), 1);
        assert!(pod.get("initContainers").is_none());
        // No pod gets a token for Kubernetes' API.
        assert_eq!(pod["automountServiceAccountToken"], false);
        let account = of_kind(&objects, "ServiceAccount");
        assert_eq!(account["automountServiceAccountToken"], false);
        assert_eq!(pod["serviceAccountName"], account["metadata"]["name"]);
    }
}

#[test]
fn probes_ask_for_routes_that_exist() {
    let routes: BTreeSet<String> = keyway_sites::inventory()
        .iter()
        .filter(|entry| entry.method == "GET")
        .map(|entry| entry.whole_path())
        .collect();
    for file in FILES {
        let objects = objects(file);
        let container = container(&objects);
        for (probe, path) in [
            ("startupProbe", "/health/live"),
            ("livenessProbe", "/health/live"),
            ("readinessProbe", "/health/ready"),
        ] {
            let get = &container[probe]["httpGet"];
            assert_eq!(get["path"], path, "{file}: {probe}");
            assert!(routes.contains(path), "{path}");
            assert_eq!(get["port"], container["ports"][0]["name"]);
            assert_eq!(get["scheme"], "HTTPS");
        }
        // Kubernetes waits for the server's own end.
        assert!(pod(&objects)["terminationGracePeriodSeconds"].as_u64() > Some(30));
    }
}

#[test]
fn objects_select_the_pods_and_their_port() {
    for file in FILES {
        let objects = objects(file);
        let workload = workload(&objects);
        let labels = &workload["spec"]["template"]["metadata"]["labels"];
        assert!(labels.as_object().is_some_and(|labels| !labels.is_empty()));
        assert_eq!(&workload["spec"]["selector"]["matchLabels"], labels);
        let port = &container(&objects)["ports"][0];
        for object in &objects {
            assert!(
                object["metadata"]["name"] == "keyway" || object["kind"] == "Service",
                "{file}"
            );
            let namespace = object["metadata"].get("namespace");
            assert!(object["kind"] == "Namespace" || namespace == Some(&json!("keyway")));
            match object["kind"].as_str().unwrap() {
                "Service" => {
                    assert_eq!(&object["spec"]["selector"], labels, "{file}");
                    assert_eq!(object["spec"]["ports"][0]["targetPort"], port["name"]);
                }
                "PodDisruptionBudget" => {
                    assert_eq!(&object["spec"]["selector"]["matchLabels"], labels);
                }
                "NetworkPolicy" => {
                    assert_eq!(&object["spec"]["podSelector"]["matchLabels"], labels);
                    let ingress = &object["spec"]["ingress"][0];
                    assert_eq!(ingress["ports"][0]["port"], port["name"]);
                    assert!(ingress["from"][0]["podSelector"].is_object());
                    assert_eq!(object["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
                }
                _ => {}
            }
        }
        of_kind(&objects, "NetworkPolicy");
        let budget = of_kind(&objects, "PodDisruptionBudget");
        let replicas = workload["spec"]["replicas"].as_u64().unwrap();
        let kept = budget["spec"]["minAvailable"].as_u64().unwrap_or(0);
        assert!(kept < replicas, "{file}: a node can be drained");
    }
}

#[test]
fn secrets_come_from_secrets_of_the_namespace() {
    for file in FILES {
        let objects = objects(file);
        let container = container(&objects);
        for one in container["env"].as_array().unwrap() {
            let name = one["name"].as_str().unwrap();
            let is_secret = SECRET_VARIABLES.contains(&name);
            assert_eq!(one.get("valueFrom").is_some(), is_secret, "{file}: {name}");
        }
        // Each file that a variable names is on a volume.
        let mounts = container["volumeMounts"].as_array().unwrap();
        let files = container["env"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|one| {
                let name = one["name"].as_str()?;
                let is_file = name.ends_with("_FILE") || name.starts_with("KEYWAY_TLS_");
                is_file.then_some(one["value"].as_str()).flatten()
            });
        let files: Vec<&str> = files.collect();
        assert!(files.len() >= 2, "{file}: {files:?}");
        for path in files {
            let is_mounted =
                |mount: &&Value| path.starts_with(mount["mountPath"].as_str().unwrap());
            assert_eq!(mounts.iter().filter(is_mounted).count(), 1, "{path}");
        }
        let image = container["image"].as_str().unwrap();
        assert_eq!(image, format!("keyway:{VERSION}"));
    }
}

#[test]
fn only_replicas_of_a_shared_table_are_several() {
    let node = objects("one-node.yaml");
    assert_eq!(workload(&node)["kind"], "StatefulSet");
    assert_eq!(workload(&node)["spec"]["replicas"], 1);
    let service = &workload(&node)["spec"]["serviceName"];
    assert!(
        node.iter()
            .any(|object| object["kind"] == "Service" && &object["metadata"]["name"] == service)
    );
    let claims = &workload(&node)["spec"]["persistentVolumeClaimRetentionPolicy"];
    assert_eq!(
        claims,
        &json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
    );
    let data = variable(&node, "KEYWAY_DATA_DIR")
        .unwrap()
        .as_str()
        .unwrap();
    let mounts = container(&node)["volumeMounts"].as_array().unwrap();
    let volume = mounts.iter().find(|mount| mount["name"] == "data").unwrap();
    let folder = format!("{}/", volume["mountPath"].as_str().unwrap());
    assert!(
        data.starts_with(&folder),
        "Keyway makes its folder below the volume"
    );
    assert!(variable(&node, "KEYWAY_TABLE").is_none());

    for (file, named) in [
        (
            "shared-table.yaml",
            &["KEYWAY_TABLE", "KEYWAY_ROOT_KEYRING_SECRET", "AWS_REGION"][..],
        ),
        (
            "postgres.yaml",
            &["KEYWAY_POSTGRES", "KEYWAY_ROOT_KEYRING_VAULT"],
        ),
    ] {
        let shared = objects(file);
        for name in named {
            assert!(
                variable(&shared, name).is_some_and(|value| value != ""),
                "{file}: {name}"
            );
        }
    }
}

#[test]
fn replicas_of_a_database_are_on_several_nodes_and_need_no_folder() {
    for file in SHARED {
        let shared = objects(file);
        let workload = workload(&shared);
        assert_eq!(workload["kind"], "Deployment");
        assert!(workload["spec"]["replicas"].as_u64() > Some(1));
        assert_eq!(variable(&shared, "KEYWAY_DATA_DIR"), Some(&json!("")));
        for name in ["KEYWAY_PASSPHRASE_FILE", "KEYWAY_PASSPHRASE"] {
            assert!(variable(&shared, name).is_none(), "{file}: no file has it");
        }
        let rolling = &workload["spec"]["strategy"]["rollingUpdate"];
        assert_eq!(rolling, &json!({"maxUnavailable": 0, "maxSurge": 1}));
        let spread = pod(&shared)["topologySpreadConstraints"]
            .as_array()
            .unwrap();
        let labels = &workload["spec"]["template"]["metadata"]["labels"];
        for constraint in spread {
            assert_eq!(&constraint["labelSelector"]["matchLabels"], labels);
        }
        let by_node = spread
            .iter()
            .find(|one| one["topologyKey"] == "kubernetes.io/hostname");
        let by_node = by_node.unwrap();
        assert_eq!(by_node["whenUnsatisfiable"], "DoNotSchedule", "{file}");
    }
}

/// The settings of the container are ones that the server takes: it fails only when it looks for the database.
#[tokio::test]
async fn settings_of_the_postgres_deployment_are_understood() {
    let shared = objects("postgres.yaml");
    let folder = tempfile::tempdir().unwrap();
    let mut options = ServerOptions::not_started();
    for one in container(&shared)["env"].as_array().unwrap() {
        let name = one["name"].as_str().unwrap();
        let value = match name {
            "KEYWAY_ROOT_KEYRING_VAULT_ROLE_ID" => "a-role",
            _ => one["value"].as_str().unwrap_or("test-root-value"),
        };
        let local = value.replace("/run/secrets/keyway", folder.path().to_str().unwrap());
        options = options.variable(name, &local.replace(".example.com", ".invalid"));
    }
    for (name, content) in [
        ("postgres/password", "p"),
        ("vault/secret-id", "s"),
        ("postgres/ca.crt", ""),
        ("vault/ca.crt", ""),
    ] {
        let certificate = || {
            generate_simple_self_signed(["ca".to_owned()])
                .unwrap()
                .cert
                .pem()
        };
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let content = match content {
            "" => certificate(),
            content => content.to_owned(),
        };
        std::fs::write(path, content).unwrap();
    }
    let (code, stderr) = options.fail(folder.path()).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("the table in PostgreSQL"), "{stderr}");
}
