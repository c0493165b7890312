//! The collector as programs and browsers see it.

use anyhow::{Context as _, ensure};
use reqwest::header::{CONTENT_TYPE, COOKIE, LOCATION, ORIGIN, SET_COOKIE};
use reqwest::{Client, StatusCode};
use serde_json::Value;

/// Asks with an API token; signs in like a browser when told to.
#[derive(Clone)]
pub struct Api {
    client: Client,
    base: String,
    token: String,
}

/// A browser that signed in.
pub struct Browser {
    api: Api,
    cookie: String,
}

impl Api {
    pub(crate) fn new(client: Client, base: String, token: String) -> Self {
        Self { client, base, token }
    }

    /// Where it listens, `https://127.0.0.1:port`.
    pub fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// The client, for requests with other credentials.
    pub fn client(&self) -> &Client {
        &self.client
    }

    async fn text(&self, path: &str) -> anyhow::Result<String> {
        let answer = self.client.get(format!("{}{path}", self.base)).bearer_auth(&self.token).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status == StatusCode::OK, "{path} answered {status}: {text}");
        Ok(text)
    }

    /// JSON of a path below `/api/v1/`.
    ///
    /// # Errors
    /// When the collector does not answer with 200 and JSON.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let text = self.text(&format!("/api/v1/{path}")).await?;
        serde_json::from_str(&text).with_context(|| format!("{path} is not JSON: {text}"))
    }

    /// Sends JSON to a path below `/api/v1/` with the token of somebody; gives the status and the JSON of the answer, null
    /// when it has none.
    ///
    /// # Errors
    /// When the collector does not answer.
    pub async fn post_as(&self, token: &str, path: &str, body: &Value) -> anyhow::Result<(StatusCode, Value)> {
        let request = self.client.post(format!("{}/api/v1/{path}", self.base)).bearer_auth(token);
        let answer = request.header(CONTENT_TYPE, "application/json").body(body.to_string()).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
    }

    /// One service.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub async fn service(&self, name: &str) -> anyhow::Result<Value> {
        self.get(&format!("services/{name}")).await
    }

    /// Fails unless the service is in `state`; gives the service.
    ///
    /// # Errors
    /// As [`Api::get`], or when it is in another.
    pub async fn service_in(&self, name: &str, state: &str) -> anyhow::Result<Value> {
        let service = self.service(name).await?;
        ensure!(service["state"] == state, "{name} is not {state}: {service:#}");
        Ok(service)
    }

    /// The newest alert whose key begins with `key`, open or resolved.
    ///
    /// # Errors
    /// As [`Api::get`], or when there is none.
    pub async fn alert(&self, key: &str) -> anyhow::Result<Value> {
        let all = self.get("alerts?state=all").await?;
        let alerts = all["alerts"].as_array().context("alerts is a list")?;
        let found = alerts.iter().find(|alert| alert["key"].as_str().is_some_and(|own| own.starts_with(key)));
        found.cloned().with_context(|| format!("no alert {key} in {all:#}"))
    }

    /// The newest alert whose key begins with `key`, if it is resolved.
    ///
    /// # Errors
    /// As [`Api::alert`], or when it still lasts.
    pub async fn resolved(&self, key: &str) -> anyhow::Result<Value> {
        let alert = self.alert(key).await?;
        ensure!(alert["resolved_at"].is_i64(), "{key} still lasts: {alert:#}");
        Ok(alert)
    }

    /// The host an agent runs on.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub async fn host(&self, agent: &str) -> anyhow::Result<Value> {
        self.get(&format!("hosts/{agent}")).await
    }

    /// The value of a metric without labels other than `label`, for instance `peil_service_up{service="web"}`.
    ///
    /// # Errors
    /// When the collector does not answer, or has no such line.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = self.text("/metrics").await?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = line.with_context(|| format!("no line {name:?} in\n{text}"))?;
        value.parse().with_context(|| format!("{name} is {value:?}"))
    }

    /// Signs in through the form, as a browser does.
    ///
    /// # Errors
    /// When the form or the password is refused.
    pub async fn sign_in(&self, name: &str, password: &str) -> anyhow::Result<Browser> {
        let url = format!("{}/login", self.base);
        let form = self.client.get(&url).send().await?.text().await?;
        ensure!(form.contains("<form method=\"post\" action=\"/login\">"), "no form to sign in: {form}");
        let request = self.client.post(&url).header(ORIGIN, &self.base);
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let answer = request.body(format!("name={name}&password={password}&next=/")).send().await?;
        ensure!(answer.status() == StatusCode::SEE_OTHER, "not signed in: {}", answer.text().await?);
        ensure!(answer.headers().get(LOCATION).is_some_and(|to| to == "/"), "sent elsewhere: {answer:?}");
        let cookie = answer.headers().get(SET_COOKIE).context("no cookie")?.to_str()?;
        ensure!(cookie.contains("Secure; HttpOnly"), "a cookie others can read: {cookie}");
        let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        Ok(Browser { api: self.clone(), cookie })
    }
}

impl Browser {
    /// The HTML of a page.
    ///
    /// # Errors
    /// When it is not shown.
    pub async fn page(&self, path: &str) -> anyhow::Result<String> {
        let request = self.api.client.get(format!("{}{path}", self.api.base)).header(COOKIE, &self.cookie);
        let answer = request.send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status == StatusCode::OK, "{path} answered {status}: {text}");
        Ok(text)
    }
}
