//! The API's own description, made from its types and handlers.

use lighter_transport::location::api::{Revocations, SnapshotPage, StorePresence};
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};

use super::handlers;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Lighter location server",
        description = "Where users' stores are, and whether they can be reached. Binary values are base64url without \
            padding, times Unix seconds, PeerIds libp2p's base58 text. Bodies need a Content-Length: chunked ones are \
            refused with 411.",
    ),
    paths(
        handlers::domain,
        handlers::enrol,
        handlers::succession,
        handlers::register,
        handlers::ping,
        handlers::offline,
        handlers::confirm,
        handlers::primary,
        handlers::hosting,
        handlers::hosting_registrations,
        handlers::hosting_acceptance,
        handlers::store,
        handlers::lookup,
        handlers::introduction,
        handlers::speaker,
        handlers::foreign_lookup,
        handlers::foreign_introduction,
        handlers::acceptance,
        handlers::change_acceptance,
        handlers::presence,
        handlers::put_relay,
        handlers::remove_relay,
        handlers::openapi,
        handlers::health,
        handlers::metrics,
    ),
    components(schemas(Revocations, SnapshotPage, StorePresence)),
    modifiers(&Security)
)]
struct Document;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        for (name, description) in [
            ("token", "An API token that the admin made, with scopes."),
            (
                "session",
                "What registering gave a store; good until the server restarts or the store goes offline.",
            ),
        ] {
            let mut scheme = Http::new(HttpAuthScheme::Bearer);
            scheme.description = Some(description.to_owned());
            components.add_security_scheme(name, SecurityScheme::Http(scheme));
        }
    }
}

/// The OpenAPI document.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}
