package v1alpha1

// AuthenticationSpec says whom the tenant's API believes beside those that have
// certificates and tokens of its own. It means what the jwt of an
// AuthenticationConfiguration of apiserver.config.k8s.io/v1 means.
type AuthenticationSpec struct {
	// JWT are issuers of tokens, such as an OpenID Connect provider.
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	JWT []JWTAuthenticator `json:"jwt"`
}

// JWTAuthenticator believes the tokens of one issuer.
type JWTAuthenticator struct {
	Issuer JWTIssuer `json:"issuer"`
	// ClaimValidationRules must all hold for a token.
	// +optional
	// +listType=atomic
	ClaimValidationRules []ClaimValidationRule `json:"claimValidationRules,omitempty"`
	// ClaimMappings say who the holder of a token is.
	ClaimMappings ClaimMappings `json:"claimMappings"`
	// UserValidationRules must all hold for whom the claims were mapped to.
	// +optional
	// +listType=atomic
	UserValidationRules []UserValidationRule `json:"userValidationRules,omitempty"`
}

// JWTIssuer issues tokens. It is reached as from a pod of the tenant.
type JWTIssuer struct {
	// URL is the claim iss, and by default where the issuer is asked about itself.
	// +kubebuilder:validation:Pattern=`^https://`
	URL string `json:"url"`
	// DiscoveryURL is where the issuer is asked instead.
	// +optional
	// +kubebuilder:validation:Pattern=`^https://`
	DiscoveryURL string `json:"discoveryURL,omitempty"`
	// CertificateAuthority verifies the issuer's certificate, as PEM. It is needed:
	// the control plane's image has no list of public authorities.
	// +kubebuilder:validation:MinLength=1
	CertificateAuthority string `json:"certificateAuthority"`
	// Audiences of which a token must be for one.
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	Audiences []string `json:"audiences"`
	// AudienceMatchPolicy is MatchAny, and needed with more than one audience.
	// +optional
	// +kubebuilder:validation:Enum=MatchAny
	AudienceMatchPolicy string `json:"audienceMatchPolicy,omitempty"`
}

// ClaimValidationRule is either a claim with its value, or a CEL expression.
type ClaimValidationRule struct {
	// +optional
	Claim string `json:"claim,omitempty"`
	// +optional
	RequiredValue string `json:"requiredValue,omitempty"`
	// +optional
	Expression string `json:"expression,omitempty"`
	// +optional
	Message string `json:"message,omitempty"`
}

// ClaimMappings say who the holder of a token is.
type ClaimMappings struct {
	Username PrefixedClaimOrExpression `json:"username"`
	// +optional
	Groups *PrefixedClaimOrExpression `json:"groups,omitempty"`
	// +optional
	UID *ClaimOrExpression `json:"uid,omitempty"`
	// +optional
	// +listType=atomic
	Extra []ExtraMapping `json:"extra,omitempty"`
}

// PrefixedClaimOrExpression is either a claim with a prefix, which may be empty,
// or a CEL expression.
type PrefixedClaimOrExpression struct {
	// +optional
	Claim string `json:"claim,omitempty"`
	// +optional
	Prefix *string `json:"prefix,omitempty"`
	// +optional
	Expression string `json:"expression,omitempty"`
}

// ClaimOrExpression is either a claim or a CEL expression.
type ClaimOrExpression struct {
	// +optional
	Claim string `json:"claim,omitempty"`
	// +optional
	Expression string `json:"expression,omitempty"`
}

// ExtraMapping is one more fact about the holder of a token.
type ExtraMapping struct {
	Key             string `json:"key"`
	ValueExpression string `json:"valueExpression"`
}

// UserValidationRule must hold for whom a token was mapped to.
type UserValidationRule struct {
	Expression string `json:"expression"`
	// +optional
	Message string `json:"message,omitempty"`
}
