"""Helm and the schemas of Kubernetes for the tests: a list of questions as JSON on stdin, a list of answers on stdout.

  {"do": "lint", "chart": PATH, "values": {...}}                            -> {"messages": [...]}
  {"do": "render", "chart": PATH, "values": {...}, "kubernetes": "1.33.0"}  -> {"objects": [...], "notes": "..."}
  {"do": "read", "text": "YAML"}                                            -> {"objects": [...]}
  {"do": "write", "object": {...}}                                          -> {"text": "YAML"}
  {"do": "install" | "upgrade", "chart": PATH, "values": {...}, "kubeconfig": PATH, "namespace": N} -> {"release": {...}}
  {"do": "test", "kubeconfig": PATH, "namespace": N}                        -> {"release": {...}, "logs": "..."}
  {"do": "uninstall", "kubeconfig": PATH, "namespace": N}                   -> {"release": {...}}
  {"do": "check", "objects": [...], "kubernetes": "1.33"}                   -> {"errors": [...], "unknown": [...]}

An answer with "error" says why there is no other.
"""

import functools
import json
import sys

import helm_python as helm
import kubernetes_validate
import yaml
from helm_python import _native

# libyaml's loader reads ten times as fast, where it is there.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
NAME = "tokenscope"
# The schemas are files of some megabytes, and are asked for once an object.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)


@functools.cache
def loaded(path):
    return helm.Chart.load(path)


def documents(text):
    return [document for document in yaml.load_all(text, Loader=LOADER) if document]


def lint(chart, values):
    report = helm.lint(chart, values, strict=True, namespace=NAME)
    # 2 is a warning; 1 is that there is no icon.
    worse = [message for message in report["messages"] if message["severity"] >= 2]
    return {"messages": worse + report["errors"]}


def render(chart, values, kubernetes):
    # The wrapper's own function does not pass the version on.
    options = {"name": NAME, "namespace": NAME, "kube_version": kubernetes, "strict": False}
    text = _native.call_string("helm_render", loaded(chart)._raw(), json.dumps(values), json.dumps(options))
    files = json.loads(text)
    notes = "".join(text for name, text in files.items() if name.endswith(".txt"))
    objects = [object for name in sorted(files) if name.endswith(".yaml") for object in documents(files[name])]
    return {"objects": objects, "notes": notes}


def read(text):
    return {"objects": documents(text)}


def install(chart, values, kubeconfig, namespace):
    with helm.Config(kubeconfig_path=kubeconfig, namespace=namespace) as cluster:
        release = cluster.install(loaded(chart), NAME, values, namespace=namespace, create_namespace=True)
    return {"release": release}


def upgrade(chart, values, kubeconfig, namespace):
    # Without that, Helm takes no values for the same values as before.
    with helm.Config(kubeconfig_path=kubeconfig, namespace=namespace) as cluster:
        return {"release": cluster.upgrade(loaded(chart), NAME, values, namespace=namespace, reset_values=True)}


def test(kubeconfig, namespace):
    with helm.Config(kubeconfig_path=kubeconfig, namespace=namespace) as cluster:
        return cluster.test(NAME, timeout=180, logs=True)


def uninstall(kubeconfig, namespace):
    with helm.Config(kubeconfig_path=kubeconfig, namespace=namespace) as cluster:
        return {"release": cluster.uninstall(NAME, wait="watcher", timeout=120)}


class Indented(yaml.SafeDumper):
    """Lists are indented as the chart has them, and texts of several lines are blocks."""

    def increase_indent(self, flow=False, indentless=False):
        return super().increase_indent(flow, False)


def text_of(dumper, text):
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Indented.add_representer(str, text_of)


def write(object):
    return {"text": yaml.dump(object, Dumper=Indented, sort_keys=False, width=120)}


@functools.cache
def complaint(text, kubernetes):
    """What is wrong with one object; None if nothing is, and nothing said if there is no schema."""
    object = json.loads(text)
    try:
        kubernetes_validate.validate(object, kubernetes, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        return ""
    except kubernetes_validate.ValidationError as error:
        place = ".".join(str(part) for part in error.path)
        return f"{object['kind']} {object['metadata']['name']}: {place}: {error.message}"
    return None


def check(objects, kubernetes):
    found = [(object["kind"], complaint(json.dumps(object), kubernetes)) for object in objects]
    return {
        "errors": [said for _, said in found if said],
        "unknown": [kind for kind, said in found if said == ""],
    }


ANSWERS = {
    "lint": lint,
    "render": render,
    "read": read,
    "write": write,
    "check": check,
    "install": install,
    "upgrade": upgrade,
    "test": test,
    "uninstall": uninstall,
}


def answer(question):
    try:
        return ANSWERS[question.pop("do")](**question)
    except (helm.HelmError, yaml.YAMLError) as error:
        return {"error": str(error)}


json.dump([answer(question) for question in json.load(sys.stdin)], sys.stdout)
