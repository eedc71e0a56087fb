"""Settings of the operator's own identity provider, whose JWTs are taken as credentials. Off unless an issuer is named."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field
from pydantic_settings import NoDecode

from config.settings_types import Names, from_list

#: Asymmetric ones only: with a secret in common, whoever verifies could also sign.
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
Algorithms = Annotated[tuple[Algorithm, ...], NoDecode, BeforeValidator(from_list), Field(min_length=1)]
TenantScopes = Annotated[tuple[Literal["query", "ingest", "manage"], ...], NoDecode, BeforeValidator(from_list)]
Claim = Annotated[str, Field(min_length=1, max_length=200)]


class OidcSettings(BaseModel):
    oidc_issuer: str | None = Field(
        None,
        max_length=500,
        description="Issuer of an OpenID provider, as its tokens say it, whose JWTs are taken as credentials; none takes no "
        "foreign token.",
    )
    oidc_audience: str | None = Field(
        None, max_length=500, description="What the `aud` of its tokens must name: this service, as the provider knows it."
    )
    oidc_jwks_url: str | None = Field(
        None, description="Where its keys are; the default is what the issuer's discovery document says."
    )
    oidc_algorithms: Algorithms = Field(
        ("RS256", "ES256"),
        description="Algorithms of signatures that are taken, separated by commas. None that needs a common secret.",
    )
    oidc_tenant_claim: Claim = Field("tenant", description="Claim that names the tenant, by id or name. Without it: refused.")
    oidc_subject_claim: Claim = Field(
        "sub", description="Claim that says who the user is. It must be one that users cannot choose."
    )
    oidc_scopes_claim: Claim | None = Field(
        None, description="Claim with scopes, as text between blanks or a list: of it `carrel:query` and the like count."
    )
    oidc_labels_claim: Claim | None = Field(None, description="Claim with the list of labels that the user holds.")
    oidc_collections_claim: Claim | None = Field(None, description="Claim with the list of collections that the user sees.")
    oidc_default_scopes: TenantScopes = Field(
        ("query",), description="Scopes of users whose token has no claim of scopes, separated by commas."
    )
    oidc_default_labels: Names = Field(
        (),
        description="Labels of users whose token has no claim of labels; with none they see what has no labels, "
        "with `*` everything.",
    )
    oidc_default_collections: Names = Field(
        (), description="Collections of users whose token has no claim of collections; with none they see nothing, `*` is all."
    )
    oidc_max_age_seconds: int = Field(
        86_400, ge=60, description="Age beyond which a token is refused, whatever it says of its end."
    )
    oidc_keys_seconds: int = Field(600, ge=30, description="Age at which the provider's keys are fetched again.")
    oidc_keys_stale_seconds: int = Field(
        3600, ge=30, description="Age until which they are used while the provider does not answer."
    )
    oidc_allow_http: bool = Field(
        False, description="Whether the provider may be asked by plain http; of this machine it always may."
    )
