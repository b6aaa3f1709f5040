//! Frame Streams: how frames go through a file or a connection, and what both ends of a connection say first.

/// What the frames hold.
pub(super) const CONTENT_TYPE: &[u8] = b"protobuf:dnstap.Dnstap";

/// A control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// The reader takes this content.
    Accept = 1,
    /// Data follow.
    Start = 2,
    /// No more data follow.
    Stop = 3,
    /// The writer has this content.
    Ready = 4,
    /// The reader has read all.
    Finish = 5,
}

/// What the first octets of what a reader says are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A part of a control frame so far.
    Part,
    /// A whole one: this.
    Control(Control),
    /// Nothing that a reader of our content says.
    Nonsense,
}

/// A control frame, with the content type where it has one.
pub(super) fn control_frame(control: Control) -> Vec<u8> {
    let fields = match control {
        Control::Accept | Control::Start | Control::Ready => {
            [&CONTENT_TYPE_FIELD.to_be_bytes()[..], &(CONTENT_TYPE.len() as u32).to_be_bytes(), CONTENT_TYPE].concat()
        }
        Control::Stop | Control::Finish => Vec::new(),
    };
    let len = TYPE_LEN + fields.len();
    [&[0; 4][..], &(len as u32).to_be_bytes(), &(control as u32).to_be_bytes(), &fields].concat()
}

/// Appends a data frame.
pub(super) fn write_data_frame(data: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(data.len() as u32).to_be_bytes());
    out.extend_from_slice(data);
}

/// Octets of a data frame of so many octets.
pub(super) fn data_frame_len(out: &[u8]) -> Option<usize> {
    out.first_chunk().map(|len| PREFIX + u32::from_be_bytes(*len) as usize)
}

/// Reads what a reader has said so far.
pub(super) fn read_control(octets: &[u8]) -> Heard {
    let mut rest = octets;
    let mut word = || {
        let (word, after) = rest.split_first_chunk()?;
        rest = after;
        Some(u32::from_be_bytes(*word))
    };
    let (Some(escape), Some(len)) = (word(), word()) else { return Heard::Part };
    let len = len as usize;
    if escape != 0 || !(TYPE_LEN..=MAX_CONTROL).contains(&len) {
        return Heard::Nonsense;
    }
    if octets.len() < 2 * PREFIX + len {
        return Heard::Part;
    }
    let controls = [Control::Accept, Control::Start, Control::Stop, Control::Ready, Control::Finish];
    let Some(control) = word().and_then(|word| controls.into_iter().find(|known| *known as u32 == word)) else {
        return Heard::Nonsense;
    };
    let mut fields = rest.get(..len - TYPE_LEN).unwrap_or_default();
    let mut is_ours = control != Control::Accept;
    while let Some((&[f0, f1, f2, f3, l0, l1, l2, l3], after)) = fields.split_first_chunk() {
        let Some((value, after)) = after.split_at_checked(u32::from_be_bytes([l0, l1, l2, l3]) as usize) else {
            return Heard::Nonsense;
        };
        is_ours |= u32::from_be_bytes([f0, f1, f2, f3]) == CONTENT_TYPE_FIELD && value == CONTENT_TYPE;
        fields = after;
    }
    if is_ours && fields.is_empty() { Heard::Control(control) } else { Heard::Nonsense }
}

/// Octets of the length before a frame, or of the zero before a control frame.
const PREFIX: usize = 4;

/// Octets of the type of a control frame.
const TYPE_LEN: usize = 4;

/// Octets of the longest control frame that is taken.
pub(super) const MAX_CONTROL: usize = 512;

/// The field of a control frame that names the content.
const CONTENT_TYPE_FIELD: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_frames_are_written_and_read() {
        assert_eq!(control_frame(Control::Stop), [0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 3]);
        let ready = control_frame(Control::Ready);
        assert_eq!(ready[..20], [0, 0, 0, 0, 0, 0, 0, 34, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 22]);
        assert_eq!(&ready[20..], CONTENT_TYPE);
        for control in [Control::Accept, Control::Start, Control::Stop, Control::Ready, Control::Finish] {
            let frame = control_frame(control);
            assert_eq!(read_control(&frame), Heard::Control(control));
            assert_eq!(read_control(&[&frame[..], b"more"].concat()), Heard::Control(control));
            for short in 0..frame.len() {
                assert_eq!(read_control(&frame[..short]), Heard::Part, "{control:?} {short}");
            }
        }
    }

    #[test]
    fn nonsense_is_told_from_frames() {
        let edit = |at: usize, octet: u8| {
            let mut frame = control_frame(Control::Accept);
            frame[at] = octet;
            read_control(&frame)
        };
        assert_eq!(read_control(b"HTTP/1.1 400 Bad Request"), Heard::Nonsense);
        assert_eq!(edit(0, 1), Heard::Nonsense, "a data frame");
        assert_eq!(edit(4, 1), Heard::Nonsense, "too long");
        assert_eq!(edit(7, 3), Heard::Nonsense, "too short for its type");
        assert_eq!(edit(11, 9), Heard::Nonsense, "an unknown type");
        assert_eq!(edit(19, 23), Heard::Nonsense, "a field that does not fit");
        assert_eq!(edit(25, b'X'), Heard::Nonsense, "another content");
        assert_eq!(read_control(&[0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1]), Heard::Nonsense, "no content at all");
    }

    #[test]
    fn data_frames_have_their_length() {
        let mut out = Vec::new();
        write_data_frame(b"abc", &mut out);
        assert_eq!(out, b"\0\0\0\x03abc");
        assert_eq!(data_frame_len(&out), Some(7));
    }
}
