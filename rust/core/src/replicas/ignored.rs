//! Why a message was not listened to.

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident, $name:literal;)*) => {
        /// Why a message was not listened to.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Ignored { $($(#[$doc])* $variant,)* }

        impl Ignored {
            /// Every reason.
            pub const ALL: &[Ignored] = &[$(Ignored::$variant,)*];

            /// Its name, as metrics have it.
            pub fn name(self) -> &'static str {
                match self { $(Ignored::$variant => $name,)* }
            }
        }
    };
}

reasons! {
    /// It cannot be read.
    Malformed, "malformed";
    /// It is longer than any message should be.
    TooLarge, "too_large";
    /// It is of another version of the format.
    Version, "version";
    /// It is of routers of another group.
    Group, "group";
    /// Its router cuts prompts otherwise, or names their blocks otherwise.
    Grain, "grain";
    /// Another router has the name of this one.
    SameName, "same_name";
    /// It came twice, or after what was said later.
    Stale, "stale";
    /// There are more routers, or endpoints, than are listened to.
    Full, "full";
}
