//! How much a prompt holds.

/// How closely an image is looked at (OpenAI's `detail`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// `low`
    Low,
    /// `high`, `original`, `auto`, or nothing said: the provider may take the dearest.
    #[default]
    High,
}

/// Something that the provider adds to the prompt and that the request only names, so that its size can't be known from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// `previous_response_id`, `conversation`, an `item_reference` or earlier audio: what was said before.
    History,
    /// A prompt template by its id (Responses).
    Template,
    /// Gemini's `cachedContent`.
    CachedContent,
    /// A document, a video, or a file by id or URL: its text is not in the request.
    File,
    /// A tool that the provider runs itself (web search, code execution, MCP): its results become input.
    ServerTool,
}

/// The size of a prompt, in units that [`crate::estimate`] turns into tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// Text in bytes of UTF-8, escapes resolved; structured content (tool calls, unknown members) as the bytes of its JSON.
    pub text: u64,
    /// Definitions of tools, functions and response formats, as the bytes of their JSON.
    pub tools: u64,
    /// Messages, items or inputs.
    pub messages: u64,
    /// Tokens that the client sends as numbers (Completions and Embeddings take arrays of token ids).
    pub ids: u64,
    /// Images of detail `low`.
    pub low_images: u64,
    /// Other images.
    pub images: u64,
    /// Inline audio, in bytes of base64.
    pub audio: u64,
    /// Files and videos that are inline or named.
    pub files: u64,
    /// Their inline content, in bytes of base64.
    pub file_bytes: u64,
    /// The first thing named whose size is not in the request. Then no upper bound of the prompt can be given.
    pub unseen: Option<Unseen>,
}

impl Prompt {
    /// Whether it is text alone, so that its usage teaches how many tokens a byte of text makes.
    pub fn is_text(&self) -> bool {
        self.unseen.is_none()
            && [
                self.ids,
                self.low_images,
                self.images,
                self.audio,
                self.files,
            ] == [0; 5]
    }

    pub(super) fn add_text(&mut self, bytes: u64) {
        self.text = self.text.saturating_add(bytes);
    }

    pub(super) fn add_unseen(&mut self, unseen: Unseen) {
        self.unseen.get_or_insert(unseen);
    }

    pub(super) fn add_image(&mut self, detail: Detail) {
        let images = match detail {
            Detail::Low => &mut self.low_images,
            Detail::High => &mut self.images,
        };
        *images = images.saturating_add(1);
    }

    pub(super) fn add_file(&mut self, bytes: u64) {
        self.files = self.files.saturating_add(1);
        self.file_bytes = self.file_bytes.saturating_add(bytes);
        self.add_unseen(Unseen::File);
    }

    pub(super) fn add_audio(&mut self, bytes: u64) {
        self.audio = self.audio.saturating_add(bytes);
    }
}
