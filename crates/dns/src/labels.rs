//! A macro for enums whose variants have a fixed word, for example the value of a metric's label.

/// Defines an enum from `Variant = "word"` lines, with `ALL` (every variant in order of declaration) and
/// `label()` (the variant's word).
#[macro_export]
macro_rules! labels {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name { $($(#[$variant_meta])* $variant,)+ }

        #[allow(dead_code)] // An enum may need only one of the two.
        impl $name {
            /// All variants, in order of declaration.
            $vis const ALL: [Self; [$(stringify!($variant)),+].len()] = [$(Self::$variant),+];

            /// Returns the variant's word in logs, metrics and JSON.
            $vis const fn label(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}
