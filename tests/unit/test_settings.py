"""What the operator sets: where it is read from, and that secrets are never shown."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from pydantic import AliasChoices, SecretStr, ValidationError

from autotuner.errors import ConfigError, InfrastructureError
from autotuner.masking import masked, secrets_in
from autotuner.report.page import html
from autotuner.report.summary import summary
from autotuner.report.words import moment
from autotuner.settings import Settings, Site
from autotuner.store import Store
from autotuner.study.study import Study
from tests.builders import spec

ROOT = Path(__file__).parent.parent.parent
SECRETS = {
    "AUTOTUNER_STORE": "postgresql+psycopg://me:store-password@db/autotuner",
    "HF_TOKEN": "hf_not_to_be_seen",
    "HTTP_PROXY": "http://me:http-password@proxy:3128",
    "HTTPS_PROXY": "http://me:https-password@proxy:3128",
    "NO_PROXY": ".secret.example.com",
}
HIDDEN = ("store-password", "hf_not_to_be_seen", "http-password", "https-password", ".secret.")


def names(field: str) -> list[str]:
    """The variables a setting is read from, the first one first."""
    alias = Settings.model_fields[field].validation_alias
    if alias is None:
        return [f"AUTOTUNER_{field.upper()}"]
    assert isinstance(alias, AliasChoices)
    return list(dict.fromkeys(str(each) for each in alias.choices))


VARIABLES = sorted({name for field in Settings.model_fields for name in names(field)})


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty directory, and none of the variables: neither this machine's nor its .env."""
    for name in VARIABLES:
        for spelling in (name, name.lower(), name.upper()):
            monkeypatch.delenv(spelling, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    return Settings()


def test_secrets_are_in_no_text_of_settings(secret: Settings) -> None:
    site = secret.site
    for text in (
        repr(secret),
        str(secret),
        secret.model_dump_json(),
        str(secret.model_dump()),
        repr(site),
        str(site),
        site.model_dump_json(),
        str([site]),
        f"{site.hf_token} {site.http_proxy!r}",
    ):
        assert not [each for each in HIDDEN if each in text], text


def test_secrets_survive_the_way_to_an_actor_and_stay_hidden_there(secret: Settings) -> None:
    there: Site = pickle.loads(pickle.dumps(secret.site))
    assert there == secret.site
    assert not [each for each in HIDDEN if each in repr(there)]
    assert there.environment()["HF_TOKEN"] == "hf_not_to_be_seen"


@pytest.mark.parametrize("field", ["store", "hf_token", "http_proxy", "https_proxy", "no_proxy"])
def test_whatever_may_hold_a_password_is_a_secret(field: str) -> None:
    assert "SecretStr" in str(Settings.model_fields[field].annotation)
    if field in Site.model_fields:
        assert "SecretStr" in str(Site.model_fields[field].annotation)


def test_an_error_about_a_site_shows_no_secret() -> None:
    with pytest.raises(ValidationError) as caught:
        Site.model_validate({"hf_token": SecretStr("hf_not_to_be_seen"), "hub": "x"})
    assert "hf_not_to_be_seen" not in str(caught.value)


def test_an_error_of_the_store_shows_no_password() -> None:
    pytest.importorskip("psycopg")
    url = "postgresql+psycopg://me:store-password@127.0.0.1:1/autotuner?connect_timeout=1"
    with pytest.raises(InfrastructureError) as caught:
        Store(url)
    assert "store-password" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value), "it does say which store"


def test_servers_get_both_spellings_and_only_what_is_set(secret: Settings) -> None:
    assert Settings(_env_file=None).site.environment() == secret.site.environment()
    assert secret.site.environment() == {
        "HTTP_PROXY": SECRETS["HTTP_PROXY"],
        "http_proxy": SECRETS["HTTP_PROXY"],
        "HTTPS_PROXY": SECRETS["HTTPS_PROXY"],
        "https_proxy": SECRETS["HTTPS_PROXY"],
        "NO_PROXY": f"{SECRETS['NO_PROXY']},127.0.0.1,localhost",
        "no_proxy": f"{SECRETS['NO_PROXY']},127.0.0.1,localhost",
        "HF_TOKEN": SECRETS["HF_TOKEN"],
        "HUGGING_FACE_HUB_TOKEN": SECRETS["HF_TOKEN"],
    }
    assert Site().environment() == {}
    assert Site.model_validate({"hf_token": ""}).environment() == {}, "an empty one is none"


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AUTOTUNER_HF_TOKEN"])
def test_the_token_is_read_under_each_of_its_names(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "hf_1")
    assert Settings().site.environment()["HF_TOKEN"] == "hf_1"


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "AUTOTUNER_HTTPS_PROXY"])
def test_proxies_are_read_in_both_spellings(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "http://proxy:1")
    found = Settings().site.environment()
    assert set(found) == {"HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"}
    assert found["NO_PROXY"] == "127.0.0.1,localhost", "no server asks itself through a proxy"


def test_our_own_name_wins_over_everybodys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://for-people:1")
    monkeypatch.setenv("AUTOTUNER_HTTP_PROXY", "http://for-servers:1")
    assert Settings().site.environment()["http_proxy"] == "http://for-servers:1"


def test_a_dotenv_is_read_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines = ["AUTOTUNER_HOME=/a", "HF_TOKEN=hf_1", "TIMEZONE=Europe/Berlin", "SOMETHING_ELSE=1"]
    (tmp_path / ".env").write_text("\n".join(lines))
    monkeypatch.setenv("AUTOTUNER_HOME", "/b")
    settings = Settings()
    assert settings.home == Path("/b")
    assert settings.site.environment()["HF_TOKEN"] == "hf_1"
    assert settings.timezone == "Europe/Berlin"


def test_the_home_is_that_of_who_asks_now(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings().home == tmp_path / ".autotuner"
    assert Settings().store_url == f"sqlite:///{tmp_path}/.autotuner/autotuner.db"


def test_lists_and_ranges_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNER_MOUNTS", "/a, /b,")
    monkeypatch.setenv("AUTOTUNER_PORTS", "21000-21999")
    assert Settings().site.mounts == ("/a", "/b")
    assert Settings().site.ports == (21000, 21999)


def test_relative_paths_begin_where_the_settings_are_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Actors, which get them as values, work in other directories."""
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / ".env").write_text("AUTOTUNER_MODELS=models/../m\nAUTOTUNER_ALLOW=allow.yaml\n")
    monkeypatch.setenv("AUTOTUNER_MOUNTS", "adapters,~/templates,/c")
    monkeypatch.setenv("AUTOTUNER_HOME", "here")
    monkeypatch.setenv("HF_HOME", "~/hub")
    settings = Settings()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    site: Site = pickle.loads(pickle.dumps(settings.site))
    assert site.models == tmp_path / "m"
    assert site.mounts == (f"{tmp_path}/adapters", "/home/me/templates", "/c")
    assert site.hub_cache == Path("/home/me/hub")
    assert settings.allow == tmp_path / "allow.yaml"
    assert settings.studies == tmp_path / "here" / "studies"
    assert settings.store_url == f"sqlite:///{tmp_path}/here/autotuner.db"


def test_the_home_of_nobody_is_an_error_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNER_MODELS", "~nobody-of-that-name/models")
    with pytest.raises(ConfigError, match="AUTOTUNER_MODELS: ~nobody-of-that-name"):
        Settings()


@pytest.mark.parametrize("said", ["me:PASSWORD@registry.example.com", "PASSWORD@registry/mirror"])
def test_a_registrys_password_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    """Images' names are in plans, logs and the store."""
    monkeypatch.setenv("AUTOTUNER_REGISTRY", said)
    with pytest.raises(ConfigError, match=r"AUTOTUNER_REGISTRY: .*docker login") as caught:
        Settings()
    assert "PASSWORD" not in str(caught.value)


def test_a_registry_is_no_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNER_REGISTRY", "https://registry.example.com")
    with pytest.raises(ConfigError, match="write HOST or HOST/PATH"):
        Settings()
    monkeypatch.setenv("AUTOTUNER_REGISTRY", "registry.example.com:5000/mirror")
    assert Settings().site.registry == "registry.example.com:5000/mirror"


def test_a_number_that_is_none_is_told_in_our_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNER_SERVICE_PORT", "many")
    with pytest.raises(ConfigError, match="AUTOTUNER_SERVICE_PORT: must be a valid integer"):
        Settings()


@pytest.mark.parametrize("said", ["21000", "a-b", "21999-21000", "80-90", "21000-70000"])
def test_a_range_of_ports_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv("AUTOTUNER_PORTS", said)
    with pytest.raises(ConfigError, match=f"AUTOTUNER_PORTS: {said!r}"):
        Settings()


def test_a_time_zone_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMEZONE", "Nowhere/Atall")
    with pytest.raises(ConfigError, match="AUTOTUNER_TIMEZONE: 'Nowhere/Atall' is no time zone"):
        Settings()
    monkeypatch.setenv("TIMEZONE", "Europe/Berlin")
    assert Settings().zone == ZoneInfo("Europe/Berlin")


def test_a_variable_that_is_empty_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
    settings = Settings()
    assert settings.models is None
    assert settings.ports == (20000, 31999)
    assert settings.site.environment() == {}


def test_every_variable_is_in_the_docs_and_in_the_example_with_its_own_name() -> None:
    told = (ROOT / "docs" / "settings.md").read_text()
    example = (ROOT / ".env.example").read_text()
    written = set(re.findall(r"^#([A-Z_]+)=", example, re.M))
    for field in Settings.model_fields:
        for name in names(field):
            assert f"`{name}`" in told, name
        assert written & set(names(field)), f"{field} is not in .env.example"
    assert written <= set(VARIABLES), "and nothing else is"
    documented = set(re.findall(r"`(AUTOTUNER_[A-Z_]+)`", told))
    assert documented <= set(VARIABLES)


def test_the_example_sets_nothing_and_its_lines_are_good(tmp_path: Path) -> None:
    example = (ROOT / ".env.example").read_text()
    (tmp_path / ".env").write_text(example)
    assert Settings() == Settings(_env_file=None)
    (tmp_path / ".env").write_text(re.sub(r"^#([A-Z_]+=)", r"\1", example, flags=re.M))
    settings = Settings()
    assert settings.site.ports == (20000, 31999)
    assert settings.site.mounts == ("/shared/adapters", "/shared/templates")
    assert settings.site.environment()["HF_TOKEN"] == "hf_your_token"


def test_the_defaults_in_the_docs_are_those_of_the_code() -> None:
    told = (ROOT / "docs" / "settings.md").read_text()
    rows = {
        row[0].split("`")[1]: row[1].strip().strip("`")
        for line in told.splitlines()
        if len(row := [each.strip() for each in line.strip("|").split("|")]) == 3
        and row[0].startswith("`AUTOTUNER_")
    }
    assert rows["AUTOTUNER_PORTS"] == "20000-31999"
    settings = Settings()
    assert settings.ports == (20000, 31999)
    assert rows["AUTOTUNER_OME_NAMESPACE"] == settings.ome_namespace
    assert rows["AUTOTUNER_TIMEZONE"] == settings.timezone
    for field in ("models", "hub_cache", "mounts", "registry", "http_proxy", "hf_token"):
        assert rows[names(field)[0]] == ""
        assert not getattr(settings, field)


def test_times_are_shown_in_the_zone_that_was_asked_for() -> None:
    stored = "2026-07-05T22:30:00+00:00"
    assert moment(stored) == "2026-07-05 22:30 UTC"
    assert moment(stored, ZoneInfo("Europe/Berlin")) == "2026-07-06 00:30 CEST"
    assert moment("") == "\N{EN DASH}"


def test_a_page_shows_its_times_in_that_zone_and_stores_none_of_it() -> None:
    study = Study(spec(), "/studies/small", started_at="2026-07-05T22:30:00+00:00")
    content = json.loads(json.dumps(summary(study, [])))
    assert "2026-07-06 00:30 CEST" in html(content, ZoneInfo("Europe/Berlin"))
    assert content["study"]["started_at"] == "2026-07-05T22:30:00+00:00"


def test_secrets_are_masked_and_little_else() -> None:
    variables = {"HF_TOKEN": "hf_x", "https_proxy": "http://u:pass@p:1", "NO_PROXY": "localhost"}
    text = "hf_x at http://u:pass@p:1 from localhost"
    assert masked(text, variables) == "*** at http://u:***@p:1 from localhost"
    assert masked("as it is", {"HF_TOKEN": "", "http_proxy": "http://[bad"}) == "as it is"


def test_secrets_are_known_by_their_variables_names_and_in_urls() -> None:
    secret = {
        "AWS_SECRET_ACCESS_KEY": "aws-secret",
        "OPENAI_API_KEY": "openai-key",
        "GITHUB_TOKEN": "github",
        "DEPLOY_KEY_PASSWORD": "first line\nsecond line",
        "STORE": "postgresql://me:store%40word@db/autotuner",
        "OPENAI_KEY": "of-openai",
        "GITLAB_TOKEN_CI": "of-gitlab",
        "ALL_PROXY": "http://a-token-in-its-place@proxy:3128",
    }
    found = [
        "of-openai",
        "of-gitlab",
        "a-token-in-its-place",
        "store%40word",
        "second line",
        "store@word",
        "aws-secret",
        "first line",
        "openai-key",
    ]
    assert set(secrets_in(secret)) == {*found, "github"}
    assert [len(each) for each in secrets_in(secret)] == sorted(
        map(len, secrets_in(secret)), reverse=True
    ), "one that holds another goes first"
    plain = {
        "TOKENIZERS_PARALLELISM": "false",
        "MAX_TOKENS": "4096",
        "KEYBOARD": "qwertz",
        "API_KEY": "123",
        "MAX_TOKEN_LENGTH": "131072",
        "INDEX": "https://a-name@example.org/simple",
    }
    assert secrets_in(plain) == []
