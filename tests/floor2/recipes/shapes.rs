//! What CI systems and Kubernetes expect, as far as the recipes use it: a key that is not here, or a value of another type, is an
//! error. From the references of the systems: GitLab's CI/CD YAML syntax, GitHub's workflow syntax, the APIs `batch/v1`, `v1`,
//! `tekton.dev/v1` and `argoproj.io/v1alpha1`. `privileged`, host paths, services and sockets are left out on purpose.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use yaml_rust2::{Yaml, YamlLoader};

/// Reads one document of YAML into a shape.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> T {
    let documents =
        YamlLoader::load_from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(documents.len(), 1, "{text}");
    serde_json::from_value(value(&documents[0])).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn value(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Null => Value::Null,
        Yaml::Boolean(is) => Value::from(*is),
        Yaml::Integer(number) => Value::from(*number),
        Yaml::String(text) => Value::from(text.as_str()),
        Yaml::Array(list) => list.iter().map(value).collect(),
        Yaml::Hash(hash) => {
            let mut map = Map::new();
            for (key, inner) in hash {
                let key = key.as_str().expect("keys are texts").to_owned();
                assert!(
                    map.insert(key.clone(), value(inner)).is_none(),
                    "{key} twice"
                );
            }
            Value::Object(map)
        }
        other => panic!("no recipe needs {other:?}"),
    }
}

type Texts = BTreeMap<String, String>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GitLab {
    pub(super) stages: Vec<String>,
    pub(super) build: GitLabJob,
    pub(super) deploy: GitLabJob,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GitLabJob {
    pub(super) stage: String,
    pub(super) image: String,
    pub(super) script: Vec<String>,
    pub(super) artifacts: Option<Artifacts>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Artifacts {
    pub(super) reports: Reports,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reports {
    pub(super) dotenv: String,
}

/// GitHub's, which Gitea's and Forgejo's actions follow.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Workflow {
    pub(super) name: String,
    pub(super) on: Value,
    #[serde(default)]
    pub(super) permissions: Texts,
    pub(super) jobs: BTreeMap<String, WorkflowJob>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WorkflowJob {
    pub(super) runs_on: String,
    pub(super) container: Option<WorkflowContainer>,
    #[serde(default)]
    pub(super) outputs: Texts,
    pub(super) needs: Option<String>,
    pub(super) steps: Vec<WorkflowStep>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WorkflowContainer {
    pub(super) image: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WorkflowStep {
    #[serde(rename = "name")]
    pub(super) _name: Option<String>,
    pub(super) id: Option<String>,
    pub(super) uses: Option<String>,
    pub(super) run: Option<String>,
    #[serde(default)]
    pub(super) env: Texts,
}

/// An object of the Kubernetes API.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Object<S> {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) metadata: Option<Metadata>,
    pub(super) spec: S,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metadata {
    pub(super) name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Job {
    #[serde(rename = "backoffLimit")]
    pub(super) _backoff_limit: u32,
    pub(super) template: PodTemplate,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PodTemplate {
    pub(super) spec: Pod,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Pod {
    pub(super) restart_policy: Option<RestartPolicy>,
    pub(super) automount_service_account_token: Option<bool>,
    pub(super) host_users: Option<bool>,
    pub(super) security_context: Option<SecurityContext>,
    #[serde(default)]
    pub(super) init_containers: Vec<Container>,
    pub(super) containers: Vec<Container>,
    #[serde(default)]
    pub(super) volumes: Vec<Volume>,
}

#[derive(Debug, Deserialize, PartialEq)]
pub(super) enum RestartPolicy {
    Never,
    OnFailure,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Container {
    /// Argo names a template's container itself.
    pub(super) name: Option<String>,
    pub(super) image: String,
    pub(super) working_dir: Option<String>,
    #[serde(default)]
    pub(super) command: Vec<String>,
    #[serde(default)]
    pub(super) args: Vec<String>,
    #[serde(default)]
    pub(super) env: Vec<Variable>,
    #[serde(rename = "resources")]
    pub(super) _resources: Option<Resources>,
    #[serde(default)]
    pub(super) volume_mounts: Vec<VolumeMount>,
    pub(super) security_context: Option<SecurityContext>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) value: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resources {
    #[serde(default, rename = "requests")]
    _requests: Texts,
    #[serde(default, rename = "limits")]
    _limits: Texts,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct VolumeMount {
    pub(super) name: String,
    pub(super) mount_path: String,
    #[serde(default, rename = "readOnly")]
    pub(super) _read_only: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Volume {
    pub(super) name: String,
    pub(super) empty_dir: Option<Empty>,
    pub(super) secret: Option<SecretVolume>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Empty {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct SecretVolume {
    #[serde(rename = "secretName")]
    _secret_name: String,
    pub(super) items: Vec<Item>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Item {
    pub(super) key: String,
    pub(super) path: String,
}

/// Of a pod or of a container: the recipes use no key that both have with another meaning.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct SecurityContext {
    pub(super) run_as_non_root: Option<bool>,
    pub(super) run_as_user: Option<u32>,
    #[serde(rename = "fsGroup")]
    _fs_group: Option<u32>,
    pub(super) allow_privilege_escalation: Option<bool>,
    pub(super) capabilities: Option<Capabilities>,
    pub(super) seccomp_profile: Option<Profile>,
    #[serde(rename = "appArmorProfile")]
    _app_armor_profile: Option<Profile>,
    #[serde(rename = "procMount")]
    _proc_mount: Option<ProcMount>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Capabilities {
    #[serde(default)]
    pub(super) add: Vec<String>,
    #[serde(default)]
    pub(super) drop: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profile {
    #[serde(rename = "type")]
    pub(super) kind: ProfileKind,
}

#[derive(Debug, Deserialize, PartialEq)]
pub(super) enum ProfileKind {
    RuntimeDefault,
    Unconfined,
}

#[derive(Debug, Deserialize)]
pub(super) enum ProcMount {
    Default,
    Unmasked,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Task {
    pub(super) params: Vec<Parameter>,
    pub(super) workspaces: Vec<Named>,
    pub(super) results: Vec<Named>,
    pub(super) volumes: Vec<Volume>,
    pub(super) steps: Vec<Container>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameter {
    pub(super) name: String,
    #[serde(rename = "type")]
    _type: Option<String>,
    #[serde(rename = "description")]
    _description: Option<String>,
    pub(super) value: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    pub(super) name: String,
    #[serde(rename = "description")]
    _description: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Argo {
    pub(super) entrypoint: String,
    pub(super) arguments: ArgoArguments,
    pub(super) volumes: Vec<Volume>,
    pub(super) templates: Vec<ArgoTemplate>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ArgoArguments {
    pub(super) parameters: Vec<Parameter>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ArgoTemplate {
    pub(super) name: String,
    pub(super) inputs: ArgoInputs,
    pub(super) outputs: ArgoOutputs,
    pub(super) container: Container,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ArgoInputs {
    pub(super) artifacts: Vec<ArgoArtifact>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ArgoArtifact {
    #[serde(rename = "name")]
    _name: String,
    pub(super) path: String,
    pub(super) git: Git,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Git {
    pub(super) repo: String,
    pub(super) revision: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ArgoOutputs {
    pub(super) parameters: Vec<ArgoOutput>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ArgoOutput {
    #[serde(rename = "name")]
    _name: String,
    pub(super) value_from: ValueFrom,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ValueFrom {
    pub(super) path: String,
}
