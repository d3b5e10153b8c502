//! Enums whose variants have a name each, the same in the database, the API, mails and logs.

/// Text that names no variant of an enum which is stored or sent as text.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is no {what}; {}", super::text::did_you_mean(text, known.iter().copied()))]
pub struct UnknownName {
    pub(crate) what: &'static str,
    pub(crate) text: String,
    pub(crate) known: Vec<&'static str>,
}

macro_rules! named {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant,)+ }

        impl $name {
            /// Every variant.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The name used in the database, the API, mails and logs.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::domain::named::UnknownName;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $name::ALL.iter().copied().find(|it| it.as_str() == text)
                    .ok_or_else(|| $crate::domain::named::UnknownName {
                        what: $what,
                        text: text.to_owned(),
                        known: $name::ALL.iter().map(|it| it.as_str()).collect(),
                    })
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::domain::named::UnknownName;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }
    };
}
pub(crate) use named;
