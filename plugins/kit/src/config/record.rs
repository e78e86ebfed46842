//! The two ways to declare configuration types.

/// Declares a struct that is read from a JSON object, with everything that follows from its fields: unknown ones are
/// refused, all mistakes are reported, and the schema carries the documentation and the defaults.
///
/// A field without a default is required, unless it is an `Option`.
///
/// ```
/// tollgate_kit::record! {
///     /// A window of requests.
///     pub struct Window {
///         /// Length, in seconds.
///         pub seconds: u64 = 60,
///         /// What to call it.
///         pub name: Option<String>,
///     }
/// }
/// ```
#[macro_export]
macro_rules! record {
    (
        $(#[doc = $about:literal])*
        $vis:vis struct $name:ident {
            $( $(#[doc = $doc:literal])* $field_vis:vis $field:ident : $type:ty $(= $default:expr)? ),* $(,)?
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug)]
        $vis struct $name {
            $( $(#[doc = $doc])* $field_vis $field: $type, )*
        }

        impl $crate::config::Field for $name {
            fn read(value: $crate::json::Value<'_>, reader: &mut $crate::config::Reader<'_>) -> Option<Self> {
                let [$($field),*] = reader.members_as_written(value, &[$(stringify!($field)),*])?;
                $(
                    let absent: Option<$type> = <$type as $crate::config::Field>::absent();
                    $( let absent: Option<$type> = absent.or(Some($default)); )?
                    let $field = reader.field(stringify!($field), $field, absent);
                )*
                Some($name { $($field: $field?),* })
            }

            #[cfg(not(target_family = "wasm"))]
            fn schema() -> $crate::schema::Json {
                let mut object = $crate::schema::Object::new(concat!($($about, "\n"),*));
                $(
                    let absent: Option<$type> = <$type as $crate::config::Field>::absent();
                    let default: Option<$type> = None;
                    $( let default: Option<$type> = default.or(Some($default)); )?
                    object.field(
                        stringify!($field),
                        concat!($($doc, "\n"),*),
                        <$type as $crate::config::Field>::schema(),
                        default.as_ref().map($crate::config::Field::to_json),
                        absent.is_none(),
                    );
                )*
                object.finish()
            }

            #[cfg(not(target_family = "wasm"))]
            fn to_json(&self) -> $crate::schema::Json {
                $crate::schema::Json::Object([
                    $( (stringify!($field).to_owned(), $crate::config::Field::to_json(&self.$field)) ),*
                ].into_iter().collect())
            }
        }
    };
}

/// Declares an enum that is written as one of some words.
///
/// ```
/// tollgate_kit::keyword! {
///     /// Whose behaviour.
///     pub enum Compat {
///         /// Kong's, to the letter.
///         Kong = "kong",
///     }
/// }
/// ```
#[macro_export]
macro_rules! keyword {
    (
        $(#[doc = $about:literal])*
        $vis:vis enum $name:ident {
            $( $(#[doc = $doc:literal])* $variant:ident = $word:literal ),* $(,)?
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name {
            $( $(#[doc = $doc])* $variant, )*
        }

        impl $name {
            /// The word it is written as.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $( $name::$variant => $word, )* }
            }
        }

        impl $crate::config::Field for $name {
            fn read(value: $crate::json::Value<'_>, reader: &mut $crate::config::Reader<'_>) -> Option<Self> {
                match reader.text(value)?.as_ref() {
                    $( $word => Some($name::$variant), )*
                    _ => {
                        reader.error(concat!("expected one of: ", $crate::keyword!(@list $($word),*)));
                        None
                    }
                }
            }

            #[cfg(not(target_family = "wasm"))]
            fn schema() -> $crate::schema::Json {
                $crate::schema::one_of(&[$($word),*])
            }

            #[cfg(not(target_family = "wasm"))]
            fn to_json(&self) -> $crate::schema::Json {
                $crate::schema::Json::from(self.word())
            }
        }
    };
    (@list $first:literal $(, $rest:literal)*) => { concat!($first $(, ", ", $rest)*) };
}
