//! The recipes for CI systems: each block of docs/recipes.md has the shape that its system expects, and its commands build and push.
//!
//! What a system does around the commands is done here in small: variables, expressions, parameters, volumes, files of results. What
//! brings the program there (a package from an address of the reader's) is not performed.

mod shapes;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::lab::{Lab, Ran};
use crate::support::registry::{Access, FakeRegistry, digest_of};
use shapes::{
    Argo, Container, GitLab, Job, Object, Pod, ProfileKind, RestartPolicy, SecurityContext, Task,
    Volume, Workflow, WorkflowJob, read,
};

const PAGE: &str = include_str!("../../../docs/recipes.md");
const COMMIT: &str = "6b7d1bb0ec58f6a2bb6f6c9f6b0e2f7d8a9c0e1f";

/// A place for one recipe: a checkout, and a registry in the place of all that it names.
struct Scene {
    lab: Lab,
    registry: FakeRegistry,
}

impl Scene {
    fn new(access: Access) -> Scene {
        let lab = Lab::new();
        lab.file("f", "content");
        lab.dockerfile("FROM scratch\nCOPY f /f\n");
        fs::create_dir(lab.path("programs")).unwrap();
        let program = lab.path("programs").join("builder");
        symlink(env!("CARGO_BIN_EXE_builder"), program).unwrap();
        Scene {
            lab,
            registry: FakeRegistry::start_with(access),
        }
    }

    fn path(&self, name: &str) -> String {
        self.lab.path(name).to_str().unwrap().to_owned()
    }

    /// Returns a command with the lab's environment in which `builder` is on PATH.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let usual = self.lab.command();
        for (name, value) in usual.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let path = std::env::var("PATH").unwrap();
        command
            .env("PATH", format!("{}:{path}", self.path("programs")))
            .current_dir(self.lab.context())
            .stdin(std::process::Stdio::null());
        command
    }

    fn script(&self, shell: &[&str], text: &str, variables: &BTreeMap<String, String>) -> Ran {
        let mut command = self.command(shell[0]);
        command.args(&shell[1..]).arg(text).envs(variables);
        Ran::of(command.output().unwrap())
    }

    /// Performs a container's command as a pod would, with `places` in the place of mounted paths.
    fn container(&self, container: &Container, places: &[(&str, String)], more: &[&str]) -> Ran {
        let here = |text: &str| {
            let mut text = text.replace("registry.example.com", &self.registry.host());
            for (there, here) in places {
                text = text.replace(there, here);
            }
            text
        };
        assert_eq!(container.command, ["builder"]);
        let mut command = self.command("builder");
        command.args(container.args.iter().map(|arg| here(arg)));
        let context = command.get_args().last().is_some_and(|last| last == ".");
        assert!(context, "the last word is the context: {command:?}");
        command.args(more);
        for variable in &container.env {
            command.env(&variable.name, here(&variable.value));
        }
        Ran::of(command.output().unwrap())
    }

    fn pushed(&self, repository: &str, tag: &str) -> String {
        let (_, bytes) = self
            .registry
            .manifest(repository, tag)
            .unwrap_or_else(|| panic!("{repository}:{tag} is not there"));
        digest_of(&bytes)
    }

    fn has_cache(&self, repository: &str) {
        let tags = self.registry.tags(repository);
        assert!(!tags.is_empty(), "no steps in {repository}");
    }
}

/// Returns the blocks of a section of the page, without their fences.
fn blocks(section: &str, language: &str) -> Vec<String> {
    let heading = format!("\n## {section}\n");
    let (_, rest) = PAGE
        .split_once(&heading)
        .unwrap_or_else(|| panic!("no section {section}"));
    let text = rest.split("\n## ").next().unwrap();
    let fence = format!("```{language}\n");
    let blocks = text.split(&fence).skip(1);
    blocks
        .map(|block| block.split("\n```").next().unwrap().to_owned())
        .collect()
}

fn block(section: &str, language: &str) -> String {
    let mut blocks = blocks(section, language);
    assert_eq!(blocks.len(), 1, "{section}");
    blocks.remove(0)
}

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    owned.collect()
}

/// Reads a file of `KEY=VALUE` lines as GitLab reads its reports.
fn dotenv(path: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text
        .lines()
        .map(|line| line.split_once('=').expect("KEY=VALUE"));
    lines
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Holds a pod to what the Pod Security Standard "restricted" asks for.
fn is_restricted(pod: Option<&SecurityContext>, containers: &[&Container]) {
    let nothing = SecurityContext::default();
    let pod = pod.unwrap_or(&nothing);
    for container in containers {
        let own = container.security_context.as_ref().unwrap_or(&nothing);
        let as_user = own.run_as_non_root.or(pod.run_as_non_root);
        assert_eq!(as_user, Some(true));
        assert_ne!(own.run_as_user.or(pod.run_as_user), Some(0));
        assert_eq!(own.allow_privilege_escalation, Some(false));
        let capabilities = own.capabilities.as_ref().expect("capabilities");
        assert_eq!(capabilities.drop, ["ALL"]);
        assert!(capabilities.add.is_empty());
        let profile = own
            .seccomp_profile
            .as_ref()
            .or(pod.seccomp_profile.as_ref());
        assert_eq!(profile.unwrap().kind, ProfileKind::RuntimeDefault);
    }
}

/// Holds what is mounted to what there is, and the account to the file that `DOCKER_CONFIG` names.
fn volumes_are_there(containers: &[&Container], volumes: &[Volume]) {
    for container in containers {
        for mount in &container.volume_mounts {
            let volume = volumes.iter().find(|volume| volume.name == mount.name);
            let volume = volume.unwrap_or_else(|| panic!("no volume {}", mount.name));
            assert!(volume.empty_dir.is_some() != volume.secret.is_some());
            let config = container.env.iter().find(|one| one.name == "DOCKER_CONFIG");
            if let Some(secret) = &volume.secret {
                assert_eq!(config.expect("a variable").value, mount.mount_path);
                assert_eq!(secret.items.len(), 1);
                assert_eq!(secret.items[0].key, ".dockerconfigjson");
                assert_eq!(secret.items[0].path, "config.json");
            }
        }
    }
}

#[test]
fn gitlab() {
    let recipe: GitLab = read(&block("GitLab", "yaml"));
    assert_eq!(recipe.stages, ["build", "deploy"]);
    for (job, stage) in [(&recipe.build, "build"), (&recipe.deploy, "deploy")] {
        assert_eq!(job.stage, stage);
        assert_eq!(job.image, "registry.example.com/ci/builder:shell");
    }
    let scene = Scene::new(Access::Basic {
        user: "gitlab-ci-token".into(),
        password: "of the job".into(),
    });
    let host = scene.registry.host();
    let mut job = variables(&[
        ("CI", "true"),
        ("GITLAB_CI", "true"),
        ("CI_COMMIT_SHA", COMMIT),
        ("CI_COMMIT_REF_SLUG", "main"),
        ("CI_COMMIT_REF_NAME", "main"),
        ("CI_DEFAULT_BRANCH", "main"),
        ("CI_REGISTRY", &host),
        ("CI_REGISTRY_IMAGE", &format!("{host}/team/app")),
        ("CI_REGISTRY_USER", "gitlab-ci-token"),
        ("CI_REGISTRY_PASSWORD", "of the job"),
    ]);
    let shell = ["sh", "-e", "-c"];
    scene
        .script(&shell, &recipe.build.script.join("\n"), &job)
        .succeeds();
    let digest = scene.pushed("team/app", COMMIT);
    scene.has_cache("team/app/cache");
    let report = recipe.build.artifacts.expect("a report").reports.dotenv;
    let told = dotenv(&scene.lab.context().join(report));
    assert_eq!(told["IMAGE"], format!("{host}/team/app:{COMMIT}@{digest}"));
    job.extend(told);
    let ran = scene.script(&shell, &recipe.deploy.script.join("\n"), &job);
    assert_eq!(ran.succeeds().stdout, "f\n");
}

/// Performs the jobs of a workflow whose names follow one another.
fn workflow(text: &str, marks: &[(&str, &str)], known: &[(&str, &str)]) -> (Scene, Vec<Ran>) {
    let mut recipe: Workflow = read(text);
    assert_eq!(recipe.name, "image");
    assert!(!recipe.on.is_null());
    let scene = Scene::new(Access::Open);
    let mut known = variables(known);
    let mut job = variables(marks);
    job.insert("GITHUB_REPOSITORY".into(), "team/app".into());
    job.insert("GITHUB_SHA".into(), COMMIT.into());
    let mut order: Vec<(String, WorkflowJob)> =
        std::mem::take(&mut recipe.jobs).into_iter().collect();
    order.sort_by_key(|(_, job)| job.needs.is_some());
    let mut all = Vec::new();
    for (name, one) in order {
        assert!(!one.runs_on.is_empty());
        assert!(
            one.container
                .is_none_or(|container| !container.image.is_empty())
        );
        let mut at = 0;
        for step in one.steps {
            at += 1;
            let Some(run) = step.run else {
                assert_eq!(step.uses.as_deref(), Some("actions/checkout@v4"));
                continue;
            };
            if run.starts_with("curl ") {
                continue;
            }
            let output = scene.path(&format!("output-{at}"));
            fs::write(&output, "").unwrap();
            let mut own = job.clone();
            own.insert("GITHUB_OUTPUT".into(), output.clone());
            own.insert("GITHUB_STEP_SUMMARY".into(), scene.path("summary"));
            for (name, value) in step.env {
                let value = expanded(&value, &known);
                own.insert(
                    name,
                    value.replace("registry.example.com", &scene.registry.host()),
                );
            }
            let run = run.replace("ghcr.io", &scene.registry.host());
            let ran = scene.script(&["bash", "-e", "-c"], &run, &own);
            ran.succeeds();
            all.push(ran);
            if let Some(id) = step.id {
                for (key, value) in outputs(Path::new(&output)) {
                    known.insert(format!("steps.{id}.outputs.{key}"), value);
                }
            }
        }
        for (key, value) in one.outputs {
            let value = expanded(&value, &known);
            known.insert(format!("needs.{name}.outputs.{key}"), value);
        }
    }
    (scene, all)
}

/// Replaces `${{ … }}`; what is not known is an error.
fn expanded(text: &str, known: &BTreeMap<String, String>) -> String {
    let Some((before, rest)) = text.split_once("${{") else {
        return text.to_owned();
    };
    let (expression, after) = rest.split_once("}}").expect("an end");
    let value = known
        .get(expression.trim())
        .unwrap_or_else(|| panic!("{expression} is not known"));
    format!("{before}{value}{}", expanded(after, known))
}

/// Reads what a step has written to `GITHUB_OUTPUT`: `key=value`, or a value up to a mark of its own.
fn outputs(path: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let mut all = Vec::new();
    while let Some(line) = lines.next() {
        let heredoc = line.split_once("<<").filter(|(key, _)| !key.contains('='));
        let Some((key, mark)) = heredoc else {
            let (key, value) = line.split_once('=').expect("key=value");
            all.push((key.to_owned(), value.to_owned()));
            continue;
        };
        let value: Vec<&str> = lines.by_ref().take_while(|line| *line != mark).collect();
        all.push((key.to_owned(), value.join("\n")));
    }
    all
}

#[test]
fn github() {
    let text = block("GitHub", "yaml");
    let recipe: Workflow = read(&text);
    assert_eq!(recipe.permissions["packages"], "write");
    let known = [("github.token", "token"), ("vars.BUILDER_DEB", "unused")];
    let (scene, ran) = workflow(&text, &[("GITHUB_ACTIONS", "true"), ("CI", "true")], &known);
    let digest = scene.pushed("team/app", COMMIT);
    scene.has_cache("team/app/cache");
    let host = scene.registry.host();
    assert_eq!(
        ran.last().unwrap().stdout,
        format!("deploy {host}/team/app:{COMMIT}@{digest}\n")
    );
    let summary = fs::read_to_string(scene.lab.path("summary")).unwrap();
    assert!(summary.contains(&digest), "{summary}");
}

#[test]
fn gitea_and_forgejo() {
    let marks = [
        ("GITHUB_ACTIONS", "true"),
        ("GITEA_ACTIONS", "true"),
        ("CI", "true"),
    ];
    let known = [
        ("vars.BUILDER_DEB", "unused"),
        ("vars.REGISTRY", "registry.example.com"),
        ("secrets.REGISTRY_USER", "user"),
        ("secrets.REGISTRY_PASSWORD", "password"),
    ];
    let (scene, _) = workflow(&block("Gitea and Forgejo", "yaml"), &marks, &known);
    scene.pushed("team/app", COMMIT);
    scene.has_cache("team/app/cache");
}

#[test]
fn tekton() {
    let recipe: Object<Task> = read(&block("Tekton", "yaml"));
    assert_eq!(recipe.api_version, "tekton.dev/v1");
    assert_eq!(recipe.kind, "Task");
    assert_eq!(recipe.metadata.unwrap().name, "build-image");
    let task = recipe.spec;
    let names: Vec<&str> = task.results.iter().map(|result| &*result.name).collect();
    assert_eq!(names, ["IMAGE_URL", "IMAGE_DIGEST"]);
    let [step] = &task.steps[..] else {
        panic!("one step")
    };
    assert_eq!(step.name.as_deref(), Some("build"));
    is_restricted(None, &[step]);
    volumes_are_there(&[step], &task.volumes);
    let scene = Scene::new(Access::Open);
    let host = scene.registry.host();
    fs::create_dir(scene.lab.path("results")).unwrap();
    let mut places = vec![("/state", scene.path("pod-state"))];
    for workspace in &task.workspaces {
        let there: &str = match &*workspace.name {
            "source" => "$(workspaces.source.path)",
            "registry-account" => "$(workspaces.registry-account.path)",
            other => panic!("{other}"),
        };
        places.push((there, scene.path("context")));
    }
    for parameter in &task.params {
        match &*parameter.name {
            "IMAGE" => places.push(("$(params.IMAGE)", format!("{host}/team/app:1"))),
            "CACHE" => places.push(("$(params.CACHE)", format!("{host}/team/cache"))),
            other => panic!("{other}"),
        }
    }
    assert_eq!(
        step.working_dir.as_deref(),
        Some("$(workspaces.source.path)")
    );
    // `/tekton/results` of the machine is not a test's to make.
    let results = format!("--results-dir={}", scene.path("results"));
    scene.container(step, &places, &[&results]).succeeds();
    let result = |name: &str| fs::read_to_string(scene.lab.path("results").join(name)).unwrap();
    assert_eq!(result("IMAGE_DIGEST"), scene.pushed("team/app", "1"));
    assert_eq!(result("IMAGE_URL"), format!("{host}/team/app:1"));
    scene.has_cache("team/cache");
}

#[test]
fn argo() {
    let recipe: Object<Argo> = read(&block("Argo Workflows", "yaml"));
    assert_eq!(recipe.api_version, "argoproj.io/v1alpha1");
    assert_eq!(recipe.kind, "WorkflowTemplate");
    let [template] = &recipe.spec.templates[..] else {
        panic!("one template")
    };
    assert_eq!(template.name, recipe.spec.entrypoint);
    let container = &template.container;
    is_restricted(None, &[container]);
    volumes_are_there(&[container], &recipe.spec.volumes);
    let [source] = &template.inputs.artifacts[..] else {
        panic!("one artifact")
    };
    assert_eq!(container.working_dir.as_deref(), Some(&*source.path));
    let scene = Scene::new(Access::Open);
    let host = scene.registry.host();
    fs::create_dir(scene.lab.path("pod-state")).unwrap();
    let mut places = vec![("/state", scene.path("pod-state"))];
    for parameter in &recipe.spec.arguments.parameters {
        match &*parameter.name {
            "image" => places.push((
                "{{workflow.parameters.image}}",
                format!("{host}/team/app:1"),
            )),
            "cache" => places.push((
                "{{workflow.parameters.cache}}",
                format!("{host}/team/cache"),
            )),
            "repository" => assert_eq!(source.git.repo, "{{workflow.parameters.repository}}"),
            "revision" => {
                assert_eq!(source.git.revision, "{{workflow.parameters.revision}}");
                assert_eq!(parameter.value.as_deref(), Some("main"));
            }
            other => panic!("{other}"),
        }
    }
    scene.container(container, &places, &[]).succeeds();
    let digest = &template.outputs.parameters[0].value_from.path;
    let digest = digest.replace("/state", &scene.path("pod-state"));
    let digest = fs::read_to_string(digest).unwrap();
    assert_eq!(digest.trim(), scene.pushed("team/app", "1"));
    scene.has_cache("team/cache");
}

#[test]
fn jenkins() {
    let text = block("Jenkins", "groovy");
    let quoted = |before: &str, mark: &str| {
        let (_, rest) = text
            .split_once(before)
            .unwrap_or_else(|| panic!("no {before}"));
        rest.split(mark).next().unwrap().to_owned()
    };
    let pod: Object<Pod> = read(&quoted("yaml '''\n", "'''"));
    assert_eq!((&*pod.api_version, &*pod.kind), ("v1", "Pod"));
    assert!(pod.metadata.is_none());
    let [container] = &pod.spec.containers[..] else {
        panic!("one container")
    };
    assert_eq!(container.image, "registry.example.com/ci/builder:shell");
    assert_eq!(
        [&*container.command, &*container.args],
        [["sleep"], ["infinity"]]
    );
    volumes_are_there(&[container], &pod.spec.volumes);
    let name = container.name.as_deref().unwrap();
    assert!(text.contains(&format!("container('{name}')")));
    let scene = Scene::new(Access::Open);
    let image = quoted("IMAGE = '", "'").replace("registry.example.com", &scene.registry.host());
    let job = variables(&[
        ("JENKINS_URL", "https://jenkins.example.com"),
        ("BUILD_NUMBER", "7"),
        ("IMAGE", &image),
    ]);
    scene
        .script(&["sh", "-xe", "-c"], &quoted("sh '", "'\n"), &job)
        .succeeds();
    scene.pushed("team/app", "7");
    scene.has_cache("team/app/cache");
    let id = fs::read_to_string(scene.lab.context().join("image-id")).unwrap();
    assert!(id.starts_with("sha256:"), "{id}");
    let opened = text.matches(['{', '[', '(']).count();
    assert_eq!(opened, text.matches(['}', ']', ')']).count());
}

fn kubernetes(section: &str) -> (Pod, Scene) {
    let recipe: Object<Job> = read(&block(section, "yaml"));
    assert_eq!((&*recipe.api_version, &*recipe.kind), ("batch/v1", "Job"));
    let pod = recipe.spec.template.spec;
    assert_eq!(pod.restart_policy, Some(RestartPolicy::Never));
    assert_eq!(pod.automount_service_account_token, Some(false));
    let [source] = &pod.init_containers[..] else {
        panic!("one container brings the source")
    };
    let [build] = &pod.containers[..] else {
        panic!("one container builds")
    };
    assert_eq!(source.args.last(), build.working_dir.as_ref());
    volumes_are_there(&[source, build], &pod.volumes);
    let scene = Scene::new(Access::Open);
    let places = [
        ("/state", scene.path("pod-state")),
        (
            "--termination-log",
            format!("--termination-log={}", scene.path("ended")),
        ),
    ];
    scene.container(build, &places, &[]).succeeds();
    let digest = scene.pushed("team/app", "latest");
    scene.has_cache("team/app/cache");
    let ended = fs::read_to_string(scene.lab.path("ended")).unwrap();
    let ended: Value = serde_json::from_str(&ended).unwrap();
    assert_eq!(ended["digest"], digest);
    (pod, scene)
}

#[test]
fn a_kubernetes_job() {
    let (pod, _) = kubernetes("A Kubernetes Job");
    let containers: Vec<&Container> = pod.init_containers.iter().chain(&pod.containers).collect();
    is_restricted(pod.security_context.as_ref(), &containers);
    assert_eq!(pod.host_users, None);
}

#[test]
fn a_kubernetes_job_with_a_user_namespace() {
    let (pod, _) = kubernetes("A Kubernetes Job with a user namespace");
    assert_eq!(pod.host_users, Some(false), "else root would be the node's");
    let context = pod.containers[0].security_context.as_ref().unwrap();
    assert_eq!(context.capabilities.as_ref().unwrap().add, ["SYS_ADMIN"]);
    assert_eq!(context.allow_privilege_escalation, Some(true));
}

#[test]
fn every_block_of_the_page_is_tried() {
    let shown = PAGE.matches("\n```yaml\n").count() + PAGE.matches("\n```groovy\n").count();
    let tried = [
        "GitLab",
        "GitHub",
        "Gitea and Forgejo",
        "Tekton",
        "Argo Workflows",
    ];
    let pods = ["A Kubernetes Job", "A Kubernetes Job with a user namespace"];
    let yaml: usize = tried
        .iter()
        .chain(&pods)
        .map(|one| blocks(one, "yaml").len())
        .sum();
    assert_eq!(shown, yaml + blocks("Jenkins", "groovy").len());
}

/// The other pages show parts of files: they are whole as YAML, and ask for no privilege.
#[test]
fn yaml_of_all_pages_is_yaml() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut count = 0;
    for page in fs::read_dir(docs).unwrap() {
        let path = page.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for block in text.split("\n```yaml\n").skip(1) {
            let block = block.split("\n```").next().unwrap();
            let read = yaml_rust2::YamlLoader::load_from_str(block);
            assert!(read.is_ok(), "{}: {read:?}\n{block}", path.display());
            assert!(
                !block.contains("privileged"),
                "{}:\n{block}",
                path.display()
            );
            count += 1;
        }
    }
    assert!(count > 15, "only {count} are found");
}
