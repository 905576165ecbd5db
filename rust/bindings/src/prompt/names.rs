//! What the keys of a body say, whatever API it is of.

macro_rules! keys {
    ($($says:ident: $($name:literal),+;)*) => {
        /// What a key says.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Says { $($says,)* }

        /// All keys that say something of the prompt, its tenant or its size.
        pub const KEYS: &[&str] = &[$($($name,)+)*];

        /// What a key says, and its place among those that say the same.
        pub fn says(key: &str) -> Option<(Says, usize)> {
            match key {
                $($($name)|+ => {
                    let place = [$($name),+].iter().position(|&name| name == key);
                    Some((Says::$says, place.unwrap_or(0)))
                })*
                _ => None,
            }
        }
    };
}

// Of several keys that say the same, the first counts.
keys! {
    Model: "model";
    Adapter: "lora_name", "lora_path", "adapter_id", "adapter";
    Salt: "cache_salt";
    ExtraKey: "extra_key";
    Template: "chat_template";
    Messages: "messages";
    Prompt: "prompt";
    Input: "input";
    Text: "text";
    Inputs: "inputs";
    Ids: "prompt_token_ids", "input_ids", "token_ids";
    Embeds: "prompt_embeds", "input_embeds";
    Query: "query", "queries", "text_1";
    Others: "text_2", "texts", "passages";
    Documents: "documents";
    Tools: "tools";
    Functions: "functions";
    System: "system";
    Instructions: "instructions";
    Before: "previous_response_id", "conversation";
    Kwargs: "chat_template_kwargs";
    Effort: "reasoning_effort", "reasoning";
    Images: "image_data", "images";
    Audio: "audio_data";
    Video: "video_data";
    Limit: "max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "num_predict";
    Several: "n", "best_of", "num_return_sequences";
    Nested: "sampling_params", "parameters", "options";
}
